//! Networks with a name, as commands of the control language.

use std::fmt::Write;
use std::time::Duration;

use clap::ValueEnum;

use crate::wan::units::Rate;

/// A network with a name. Times are round trips: half of each is the delay one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// A room: 0.2 ms.
    Lan,
    /// A city: 5 ms.
    Metro,
    /// A continent: 30 ms.
    Continent,
    /// Both sides of an ocean: 100 ms.
    Ocean,
    /// A bad day: 150 ms, and every hundredth segment is lost, in each direction.
    Bad,
    /// Two sites 50 ms apart, half of the hosts in each, 0.2 ms inside. All that leaves a site
    /// shares one uplink with a fifth of the rate, and so does all that enters it.
    Sites,
    /// Hosts 20 ms, 40 ms, … apart. The first has the whole rate, the second half of it, the others
    /// a quarter, each shared by all its traffic in one direction.
    Uneven,
}

impl Preset {
    /// The commands that make a network of `hosts` hosts so.
    pub fn commands(self, hosts: usize, rate: Rate) -> Vec<String> {
        match self {
            Self::Lan => vec![everywhere(Duration::from_micros(200), rate, "")],
            Self::Metro => vec![everywhere(Duration::from_millis(5), rate, "")],
            Self::Continent => vec![everywhere(Duration::from_millis(30), rate, "")],
            Self::Ocean => vec![everywhere(Duration::from_millis(100), rate, "")],
            Self::Bad => vec![everywhere(Duration::from_millis(150), rate, " loss 1%")],
            Self::Sites => sites(hosts, rate),
            Self::Uneven => uneven(hosts, rate),
        }
    }
}

/// Every link is the same.
fn everywhere(round_trip: Duration, rate: Rate, more: &str) -> String {
    let delay = one_way(round_trip);
    format!("set * * delay {delay} rate {rate} queue 1bdp{more}")
}

fn sites(hosts: usize, rate: Rate) -> Vec<String> {
    let half = hosts.div_ceil(2);
    let uplink = rate.divided_by(UPLINK_DIVISOR);
    let mut commands = vec![everywhere(Duration::from_micros(200), rate, "")];
    if half == hosts {
        return commands;
    }
    let (near, far) = (listed(0, half), listed(half, hosts));
    let delay = one_way(Duration::from_millis(50));
    commands.push(format!("site 1 {far}"));
    commands.push(format!("set {near} {far} delay {delay}"));
    commands.push(format!("set {far} {near} delay {delay}"));
    for (site, direction) in [(0, "up"), (0, "down"), (1, "up"), (1, "down")] {
        commands.push(format!(
            "uplink {site} {direction} rate {uplink} queue 1bdp"
        ));
    }
    commands
}

fn uneven(hosts: usize, rate: Rate) -> Vec<String> {
    let mut commands = Vec::new();
    for host in 0..hosts {
        let rate = rate.divided_by([1, 2, 4][host.min(2)]);
        for direction in ["up", "down"] {
            commands.push(format!("access {host} {direction} rate {rate} queue 1bdp"));
        }
        for other in 0..host {
            let delay = one_way(Duration::from_millis(20) * (host - other) as u32);
            commands.push(format!("set {host} {other} delay {delay}"));
            commands.push(format!("set {other} {host} delay {delay}"));
        }
    }
    commands
}

/// Half of a round trip, in the control language.
fn one_way(round_trip: Duration) -> String {
    format!("{}us", (round_trip / 2).as_micros())
}

fn listed(start: usize, end: usize) -> String {
    let mut text = start.to_string();
    for host in start + 1..end {
        write!(text, ",{host}").expect("a string can be written to");
    }
    text
}

/// An uplink has this part of the rate inside a site.
const UPLINK_DIVISOR: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::command::Command;
    use crate::wan::router::Router;

    #[test]
    fn every_preset_is_a_network_of_any_number_of_hosts() {
        let rate = Rate::new(1_000_000_000).unwrap();
        for preset in Preset::value_variants() {
            for hosts in 1..6 {
                let mut router = Router::new(hosts, 0);
                for line in preset.commands(hosts, rate) {
                    let command: Command = line.parse().unwrap();
                    router.apply(&command).unwrap();
                }
            }
        }
    }

    #[test]
    fn an_ocean_is_a_tenth_of_a_second_there_and_back() {
        let rate = Rate::new(500_000_000).unwrap();
        let commands = Preset::Ocean.commands(2, rate);
        assert_eq!(commands, ["set * * delay 50000us rate 500m queue 1bdp"]);
    }

    #[test]
    fn three_hosts_are_two_and_one_in_two_sites() {
        let commands = Preset::Sites.commands(3, Rate::new(1_000_000_000).unwrap());
        let expected = [
            "set * * delay 100us rate 1g queue 1bdp",
            "site 1 2",
            "set 0,1 2 delay 25000us",
            "set 2 0,1 delay 25000us",
            "uplink 0 up rate 200m queue 1bdp",
            "uplink 0 down rate 200m queue 1bdp",
            "uplink 1 up rate 200m queue 1bdp",
            "uplink 1 down rate 200m queue 1bdp",
        ];
        assert_eq!(commands, expected);
    }
}
