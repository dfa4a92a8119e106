//! The command line of a benchmark: which cases, on how many peers, how often.

use std::net::SocketAddr;
use std::time::Duration;

use ccl_core::{Algorithm, Dtype, Encoding, Kind, ReduceOp};
use clap::{Args, ValueEnum};

use super::case::{Case, Step, kind_name};
use super::inputs::parse_dtype;
use super::peer::Setup;
use super::report::Session;
use super::sizes::{Sizes, parse_time};
use crate::failure::{Failure, Result};

/// Options of the collectives.
#[derive(Args, Debug)]
pub struct CollectiveOptions {
    /// Number of peers.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub world: u32,
    /// Join the run of this master instead of starting one; its peers on other hosts run the same
    /// command.
    #[arg(long, value_name = "HOST:PORT")]
    pub master: Option<String>,
    /// Name of the run.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub run: String,
    /// Peers to start here; all of the world, or 1 with --master.
    #[arg(long, value_name = "N")]
    local: Option<u32>,
    /// Buffer sizes in bytes: FROM:TO:xFACTOR, or a list with commas.
    #[arg(long, value_name = "RANGE", default_value = "4:256MiB:x4")]
    sizes: Sizes,
    /// Element counts instead of sizes, in the same form.
    #[arg(long, value_name = "RANGE", conflicts_with = "sizes")]
    count: Option<Sizes>,
    /// Timed calls of each size; by default as many as move 1 GiB, from 5 to 200.
    #[arg(long, value_name = "N")]
    iters: Option<u32>,
    /// Calls before the clock starts; the first is checked.
    #[arg(long, value_name = "N", default_value_t = 2)]
    warmup: u32,
    /// Silence before the first and each timed call, such as 30s.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_time)]
    pause: Duration,
    /// A safe point, `update_topology`, after each call, timed with it, as in a training loop.
    #[arg(long)]
    update_topology: bool,
    /// Data connections of each link; by default as the library chooses: 1 on one host, else 4
    /// at first.
    #[arg(long, value_name = "N")]
    lanes: Option<u16>,
    /// Algorithm that moves the bytes.
    #[arg(long, value_enum, default_value_t = AlgorithmChoice::Auto)]
    algorithm: AlgorithmChoice,
    /// Type of the elements.
    #[arg(long, value_parser = parse_dtype, default_value = "f32")]
    dtype: Dtype,
    /// How elements combine.
    #[arg(long, value_parser = parse_op, default_value = "sum")]
    op: ReduceOp,
    /// What contributions are rounded to, and how they travel.
    #[arg(long, value_parser = parse_encoding)]
    encoding: Option<Encoding>,
    /// The result replaces the input.
    #[arg(long)]
    in_place: bool,
    /// Send data without CRC-32.
    #[arg(long)]
    no_checksum: bool,
    /// Do not compare results with the reference.
    #[arg(long)]
    no_check: bool,
    /// Every type with every operator at odd counts (1, 3, 1023, 1048577, or those of --count).
    #[arg(long, conflicts_with_all = ["sizes", "dtype", "op"])]
    all_types: bool,
    /// Measure plain sockets moving the same bytes in between, and print the ratios.
    #[arg(long)]
    pub floor: bool,
    /// Repeats of each size; medians are printed; default 9 with --floor, else 1.
    #[arg(long, value_name = "N")]
    repeat: Option<usize>,
    /// Threads of each peer that move bytes.
    #[arg(long, value_name = "N")]
    io_threads: Option<usize>,
    /// TCP congestion control of lanes and floor; default on one host: `cubic`.
    #[arg(long, value_name = "NAME")]
    pub congestion_control: Option<String>,
    /// Address to listen on for other peers.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// `host:port` to advertise to other peers.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Print the processes and their addresses on standard error.
    #[arg(long)]
    pub verbose: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// Options of `ccl bench floor`.
#[derive(Args, Debug)]
pub struct FloorOptions {
    /// Number of processes.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub world: u32,
    /// Sizes of the buffer in bytes.
    #[arg(long, value_name = "RANGE", default_value = "64MiB")]
    sizes: Sizes,
    /// Timed iterations of each size; by default as many as move 1 GiB, from 5 to 200.
    #[arg(long, value_name = "N")]
    iters: Option<u32>,
    /// Iterations before the clock starts.
    #[arg(long, value_name = "N", default_value_t = 2)]
    warmup: u32,
    /// Whose bytes are moved.
    #[arg(long, value_enum, default_value_t = AlgorithmChoice::TwoShot)]
    algorithm: AlgorithmChoice,
    /// Repeats, of which medians are printed.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub repeat: usize,
    /// TCP congestion control; default `cubic`.
    #[arg(long, value_name = "NAME")]
    pub congestion_control: Option<String>,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// `--algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AlgorithmChoice {
    /// As the library chooses.
    Auto,
    /// Each chunk to its owner and back to all.
    #[value(name = "two_shot", alias = "direct")]
    TwoShot,
    /// Around the ring.
    Ring,
    /// Everything to everybody.
    #[value(name = "one_shot")]
    OneShot,
}

impl AlgorithmChoice {
    /// What the library is asked for.
    pub fn as_requested(self) -> Algorithm {
        match self {
            Self::Auto => Algorithm::Auto,
            Self::TwoShot => Algorithm::TwoShot,
            Self::Ring => Algorithm::Ring,
            Self::OneShot => Algorithm::OneShot,
        }
    }
}

impl CollectiveOptions {
    /// Checks what clap cannot.
    pub fn validate(&self) -> Result<()> {
        let local = self.local_peers();
        if self.world == 0 || local == 0 || local > self.world {
            return Err(Failure::new(
                "--world must be at least 1, and --local from 1 to --world",
            ));
        }
        if local < self.world && self.master.is_none() {
            return Err(Failure::new(
                "--local needs --master: the others must find the run",
            ));
        }
        if self.floor && local < self.world {
            return Err(Failure::new(
                "--floor needs all peers of the world on this host",
            ));
        }
        if self.iters == Some(0) || self.repeat == Some(0) {
            return Err(Failure::new("--iters and --repeat must be at least 1"));
        }
        Ok(())
    }

    /// How many peers run on this host.
    pub fn local_peers(&self) -> u32 {
        self.local
            .unwrap_or(if self.master.is_some() { 1 } else { self.world })
    }

    /// How often each case is measured.
    pub fn repeats(&self) -> usize {
        self.repeat.unwrap_or(if self.floor { 9 } else { 1 })
    }

    /// The lines of the table.
    pub fn cases(&self, kind: Kind) -> Vec<Case> {
        if kind == Kind::Barrier {
            return vec![self.case(kind, Dtype::U8, ReduceOp::Sum, 0)];
        }
        let combines = matches!(kind, Kind::AllReduce | Kind::ReduceScatter);
        let ops: &[ReduceOp] = if combines {
            &ReduceOp::ALL
        } else {
            &[ReduceOp::Sum]
        };
        let types: Vec<(Dtype, ReduceOp)> = if self.all_types {
            Dtype::ALL
                .into_iter()
                .flat_map(|dtype| ops.iter().map(move |&op| (dtype, op)))
                .collect()
        } else {
            vec![(self.dtype, if combines { self.op } else { ReduceOp::Sum })]
        };
        let cases = types.into_iter().flat_map(|(dtype, op)| {
            self.counts(dtype)
                .into_iter()
                .map(move |count| self.case(kind, dtype, op, count))
        });
        cases.collect()
    }

    fn counts(&self, dtype: Dtype) -> Vec<usize> {
        let fitting = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        match (&self.count, self.all_types) {
            (Some(Sizes(counts)), _) => counts.iter().copied().map(fitting).collect(),
            (None, true) => ODD_COUNTS.to_vec(),
            (None, false) => self
                .sizes
                .0
                .iter()
                .map(|&bytes| fitting(bytes) / dtype.bytes())
                .collect(),
        }
    }

    fn case(&self, kind: Kind, dtype: Dtype, op: ReduceOp, count: usize) -> Case {
        // Shares are equal, as in nccl-tests: the rest of the buffer is left out.
        let count = match kind {
            Kind::AllGather | Kind::ReduceScatter => count - count % self.world as usize,
            Kind::AllReduce | Kind::Broadcast | Kind::Barrier | Kind::SharedState => count,
        };
        Case {
            kind,
            algorithm: self.algorithm.as_requested(),
            dtype,
            op,
            encoding: self.encoding,
            count,
            in_place: self.in_place && kind == Kind::AllReduce,
            warmup: self.warmup.max(1),
            iterations: self
                .iters
                .unwrap_or_else(|| iterations_for((count * dtype.bytes()) as u64)),
            check: !self.no_check,
            step: Step {
                pause: self.pause,
                is_safe_point: self.update_topology,
            },
        }
    }

    /// What each peer is told first.
    pub fn setup(&self, master: &str, master_process: Option<u32>) -> Setup {
        Setup {
            master: master.to_owned(),
            run: self.run.clone(),
            world_size: self.world,
            lanes: self.lanes,
            checksum: !self.no_checksum,
            congestion_control: self.congestion_control.clone(),
            io_threads: self.io_threads,
            listen: self.listen,
            advertise: self.advertise.clone(),
            master_process,
        }
    }

    /// What all lines have in common.
    pub fn session(&self) -> Session {
        Session {
            checksum: !self.no_checksum,
        }
    }

    /// One line above the table.
    pub fn describe(&self, kind: Kind) -> String {
        let lanes = self
            .lanes
            .map_or("auto".to_owned(), |lanes| lanes.to_string());
        format!(
            "{}, {} peers, {lanes} lanes, checksum {}, {} repeats",
            kind_name(kind),
            self.world,
            if self.no_checksum { "off" } else { "on" },
            self.repeats(),
        )
    }
}

impl FloorOptions {
    /// Checks what clap cannot.
    pub fn validate(&self) -> Result<()> {
        if self.world < 2 || self.repeat == 0 || self.iters == Some(0) {
            return Err(Failure::new(
                "--world must be at least 2, --repeat and --iters at least 1",
            ));
        }
        Ok(())
    }

    /// The all-reduces whose bytes are moved.
    pub fn cases(&self) -> impl Iterator<Item = Case> {
        self.sizes.0.iter().map(|&bytes| Case {
            kind: Kind::AllReduce,
            algorithm: self.algorithm.as_requested(),
            dtype: Dtype::F32,
            op: ReduceOp::Sum,
            encoding: None,
            count: usize::try_from(bytes / 4).unwrap_or(usize::MAX),
            in_place: false,
            warmup: self.warmup,
            iterations: self.iters.unwrap_or_else(|| iterations_for(bytes)),
            check: false,
            step: Step::PLAIN,
        })
    }
}

/// As many calls as move a GiB: a second or so.
fn iterations_for(bytes: u64) -> u32 {
    let calls = (1_u64 << 30)
        .checked_div(bytes)
        .unwrap_or(u64::MAX)
        .clamp(5, 200);
    u32::try_from(calls).expect("at most 200")
}

fn parse_op(name: &str) -> Result<ReduceOp, String> {
    let all = ReduceOp::ALL;
    all.into_iter().find(|op| op.name() == name).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|op| op.name()).collect();
        format!("not one of {}", names.join(", "))
    })
}

fn parse_encoding(name: &str) -> Result<Encoding, String> {
    let all = Encoding::ALL;
    let known = all.into_iter().find(|encoding| encoding.name() == name);
    known.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|encoding| encoding.name()).collect();
        format!("not one of {}", names.join(", "))
    })
}

/// Counts that no number of ranks, segments or vector lanes divides.
const ODD_COUNTS: [usize; 4] = [1, 3, 1023, 1_048_577];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: CollectiveOptions,
    }

    fn parse(text: &str) -> CollectiveOptions {
        Line::try_parse_from(std::iter::once("x").chain(text.split_whitespace()))
            .unwrap()
            .options
    }

    #[test]
    fn all_types_means_every_type_with_every_operator_at_odd_counts() {
        let cases = parse("--all-types").cases(Kind::AllReduce);
        assert_eq!(cases.len(), 12 * 5 * 4);
        let cases = parse("--all-types --count 7").cases(Kind::Broadcast);
        assert_eq!(cases.len(), 12, "a broadcast combines nothing");
    }

    #[test]
    fn sizes_are_bytes_whatever_the_type() {
        let cases = parse("--sizes 4:16:x4 --dtype f64").cases(Kind::AllReduce);
        assert_eq!(
            cases.iter().map(|case| case.count).collect::<Vec<_>>(),
            [0, 2]
        );
    }

    #[test]
    fn shares_are_equal() {
        let cases = parse("--world 4 --count 1023").cases(Kind::AllGather);
        assert_eq!(cases[0].count, 1020);
    }

    #[test]
    fn iterations_follow_the_size_unless_given() {
        assert_eq!(
            [0, 4, 64 << 20, 1 << 30].map(iterations_for),
            [200, 200, 16, 5]
        );
        assert_eq!(parse("--iters 3").cases(Kind::AllReduce)[0].iterations, 3);
    }

    #[test]
    fn a_world_that_cannot_meet_is_refused() {
        for text in [
            "--world 0",
            "--world 2 --local 1",
            "--world 2 --local 3",
            "--iters 0",
            "--repeat 0",
        ] {
            assert!(parse(text).validate().is_err(), "{text}");
        }
        assert!(
            parse("--world 2 --local 1 --master host:1")
                .validate()
                .is_ok()
        );
    }
}
