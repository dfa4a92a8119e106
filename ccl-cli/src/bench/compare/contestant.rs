//! Who is compared.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::bench::options::AlgorithmChoice;

/// Who may be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// This library, with each of its algorithms.
    Ccl,
    /// PyTorch's gloo.
    Gloo,
    /// Open MPI over TCP.
    Mpi,
    /// Plain sockets that move the same bytes: the floor.
    Sockets,
}

/// One line of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    /// This library.
    Ccl(AlgorithmChoice),
    /// PyTorch's gloo.
    Gloo,
    /// Open MPI over TCP.
    Mpi,
    /// Plain sockets, with so many connections between two processes.
    Sockets(usize),
}

impl Contestant {
    /// All of these families. What the library has is learned from it.
    pub fn of(families: &[Family]) -> Vec<Self> {
        let each = families.iter().flat_map(|family| match family {
            Family::Ccl => AlgorithmChoice::value_variants()
                .iter()
                .map(|&choice| Self::Ccl(choice))
                .collect(),
            Family::Gloo => vec![Self::Gloo],
            Family::Mpi => vec![Self::Mpi],
            Family::Sockets => SOCKETS.map(Self::Sockets).to_vec(),
        });
        each.collect()
    }

    /// Which of the four.
    pub const fn family(self) -> Family {
        match self {
            Self::Ccl(_) => Family::Ccl,
            Self::Gloo => Family::Gloo,
            Self::Mpi => Family::Mpi,
            Self::Sockets(_) => Family::Sockets,
        }
    }

    /// What tables call it.
    pub fn name(self) -> String {
        match self {
            Self::Ccl(choice) => format!("ccl {}", choice.as_requested().name()),
            Self::Gloo => "gloo".into(),
            Self::Mpi => "Open MPI".into(),
            Self::Sockets(1) => "1 socket".into(),
            Self::Sockets(connections) => format!("{connections} sockets"),
        }
    }
}

/// What the library does if it is asked for nothing: the line that a user gets.
pub const AUTO: &str = "ccl auto";
/// Numbers of connections of the floor.
const SOCKETS: [usize; 2] = [1, 4];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_of_the_library_is_compared() {
        let all = Contestant::of(Family::value_variants());
        let ours = all.iter().filter(|it| it.family() == Family::Ccl);
        assert_eq!(ours.count(), AlgorithmChoice::value_variants().len());
        let names: Vec<String> = all.iter().map(|it| it.name()).collect();
        for name in [
            AUTO,
            "ccl ring",
            "gloo",
            "Open MPI",
            "1 socket",
            "4 sockets",
        ] {
            assert!(names.contains(&name.to_owned()), "{name}: {names:?}");
        }
        assert_eq!(Contestant::of(&[Family::Mpi]), [Contestant::Mpi]);
    }
}
