//! The control language: what can be changed and asked while a network runs.
//!
//! One command is one line of words. Nothing is carried out here.

use std::str::FromStr;
use std::time::Duration;

use crate::wan::packet::HOSTS_MAX;
use crate::wan::shaper::QueueLimit;
use crate::wan::units::{Rate, parse_bytes, parse_duration, parse_probability};

/// One command.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Change the links from each of these hosts to each of those.
    Set(Pairs, LinkChange),
    /// Change what all traffic of a host passes in one direction.
    Access(Hosts, Direction, ShaperChange),
    /// Move hosts to a site.
    Site(u8, Hosts),
    /// Change what all traffic of a site with other sites passes in one direction.
    Uplink(u8, Direction, ShaperChange),
    /// Drop everything from these hosts to those, in flight too.
    Cut(Pairs),
    /// Undo `Cut` and `Split`; all of them if there are no pairs.
    Heal(Option<Pairs>),
    /// `Cut` in both directions.
    Split(Pairs),
    /// `Heal` in both directions.
    Join(Pairs),
    /// Take hosts off the network, without a sign to anyone. Their processes go on.
    Kill(Hosts),
    /// Undo `Kill`.
    Revive(Hosts),
    /// Count from 0 again.
    Reset,
    /// Ask what was counted.
    Stats,
    /// Ask where the hosts are.
    Hosts,
}

/// Some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Every host: `*`.
    All,
    /// Those with these indices.
    Some(Vec<usize>),
}

/// From each of some hosts to each of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Where packets come from.
    pub sources: Hosts,
    /// Where they go.
    pub targets: Hosts,
}

/// Seen from a host or site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What it sends.
    Up,
    /// What it receives.
    Down,
}

/// What changes of a bottleneck.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShaperChange {
    /// The new rate; `Some(None)`: unlimited.
    pub rate: Option<Option<Rate>>,
    /// How much may wait.
    pub queue: Option<QueueLimit>,
}

/// What changes of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkChange {
    /// Its own bottleneck.
    pub shaper: ShaperChange,
    /// One-way delay.
    pub delay: Option<Duration>,
    /// Each packet takes up to this much longer.
    pub jitter: Option<Duration>,
    /// Whether jitter may change the order of packets.
    pub reorder: Option<bool>,
    /// Probability that a segment is lost.
    pub loss: Option<f64>,
}

impl Hosts {
    /// The indices in a network of `count` hosts, or the first that it does not have.
    pub fn resolve(&self, count: usize) -> Result<Vec<usize>, String> {
        let listed = match self {
            Self::All => return Ok((0..count).collect()),
            Self::Some(listed) => listed,
        };
        match listed.iter().find(|host| **host >= count) {
            Some(host) => Err(format!("there is no host {host}, only 0 to {}", count - 1)),
            None => Ok(listed.clone()),
        }
    }
}

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        let index = |text: &str| text.parse().ok().filter(|index| *index < HOSTS_MAX);
        let listed: Option<Vec<usize>> = text.split(',').map(index).collect();
        let hosts = listed.map(Self::Some);
        hosts.ok_or_else(|| format!("`{text}` names no hosts; write 0 or 0,2 or *"))
    }
}

impl Pairs {
    fn parse(sources: &str, targets: &str) -> Result<Self, String> {
        Ok(Self {
            sources: sources.parse()?,
            targets: targets.parse()?,
        })
    }

    /// The same in the other direction.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            sources: self.targets.clone(),
            targets: self.sources.clone(),
        }
    }
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "up" => Ok(Self::Up),
            "down" => Ok(Self::Down),
            _ => Err(format!("`{text}` is no direction; write up or down")),
        }
    }
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = match words[..] {
            ["set", sources, targets, ref rest @ ..] => {
                Self::Set(Pairs::parse(sources, targets)?, link_change(rest)?)
            }
            ["access", hosts, direction, ref rest @ ..] => {
                Self::Access(hosts.parse()?, direction.parse()?, shaper_change(rest)?)
            }
            ["site", site, hosts] => Self::Site(parse_site(site)?, hosts.parse()?),
            ["uplink", site, direction, ref rest @ ..] => {
                Self::Uplink(parse_site(site)?, direction.parse()?, shaper_change(rest)?)
            }
            ["cut", sources, targets] => Self::Cut(Pairs::parse(sources, targets)?),
            ["heal"] => Self::Heal(None),
            ["heal", sources, targets] => Self::Heal(Some(Pairs::parse(sources, targets)?)),
            ["split", ours, theirs] => Self::Split(Pairs::parse(ours, theirs)?),
            ["join", ours, theirs] => Self::Join(Pairs::parse(ours, theirs)?),
            ["kill", hosts] => Self::Kill(hosts.parse()?),
            ["revive", hosts] => Self::Revive(hosts.parse()?),
            ["reset"] => Self::Reset,
            ["stats"] => Self::Stats,
            ["hosts"] => Self::Hosts,
            _ => return Err(format!("`{line}` is no command.\n{SYNTAX}")),
        };
        Ok(command)
    }
}

fn parse_site(text: &str) -> Result<u8, String> {
    let site = text.parse().ok().filter(|site| *site < SITES_MAX);
    site.ok_or_else(|| format!("`{text}` is no site; sites are 0 to {}", SITES_MAX - 1))
}

fn link_change(words: &[&str]) -> Result<LinkChange, String> {
    let mut change = LinkChange::default();
    for setting in settings(words)? {
        let value = setting.value;
        match setting.key {
            "delay" => change.delay = Some(parse_duration(value)?),
            "jitter" => change.jitter = Some(parse_duration(value)?),
            "loss" => change.loss = Some(parse_probability(value)?),
            "reorder" => change.reorder = Some(parse_switch(value)?),
            _ => setting.apply_to(&mut change.shaper)?,
        }
    }
    Ok(change)
}

fn shaper_change(words: &[&str]) -> Result<ShaperChange, String> {
    let mut change = ShaperChange::default();
    for setting in settings(words)? {
        setting.apply_to(&mut change)?;
    }
    Ok(change)
}

/// A key and its value.
struct Setting<'a> {
    key: &'a str,
    value: &'a str,
}

impl Setting<'_> {
    fn apply_to(&self, change: &mut ShaperChange) -> Result<(), String> {
        match self.key {
            "rate" => change.rate = Some(parse_rate(self.value)?),
            "queue" => change.queue = Some(parse_queue(self.value)?),
            key => return Err(format!("`{key}` cannot be set here.\n{SYNTAX}")),
        }
        Ok(())
    }
}

fn settings<'a>(words: &[&'a str]) -> Result<Vec<Setting<'a>>, String> {
    let pairs = words.chunks(2).map(|words| match words {
        [key, value] => Ok(Setting { key, value }),
        _ => Err(format!("`{}` needs a value", words[0])),
    });
    pairs.collect()
}

fn parse_rate(text: &str) -> Result<Option<Rate>, String> {
    match text {
        "unlimited" => Ok(None),
        text => text.parse().map(Some),
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}` is neither on nor off")),
    }
}

fn parse_queue(text: &str) -> Result<QueueLimit, String> {
    if let Some(factor) = text.strip_suffix("bdp") {
        let parsed = factor.parse().ok();
        return parsed
            .filter(|factor| (0.0..=FACTOR_MAX).contains(factor))
            .map(QueueLimit::Products)
            .ok_or_else(|| format!("`{text}` is no queue up to {FACTOR_MAX}bdp"));
    }
    let bytes = parse_bytes(text).map(QueueLimit::Bytes);
    let limit = bytes.or_else(|_| parse_duration(text).map(QueueLimit::Time));
    limit.map_err(|_| format!("`{text}` is no queue; write 64k, 10ms or 1bdp"))
}

/// What can be said.
pub const SYNTAX: &str = "\
set FROM TO [delay 50ms] [jitter 2ms] [reorder on|off] [loss 0.1%] [rate 1g|unlimited] [queue 64k|10ms|1bdp]
access HOSTS up|down [rate 1g] [queue ..]    site NUMBER HOSTS    uplink SITE up|down [rate 1g] [queue ..]
cut FROM TO    heal [FROM TO]    split HOSTS HOSTS    join HOSTS HOSTS    kill HOSTS    revive HOSTS
stats    reset    hosts
HOSTS, FROM and TO are 0 or 0,2 or *; set, cut and heal change one direction, the others both";

/// Most sites of a network.
pub const SITES_MAX: u8 = 16;

/// Longest queue in products of rate and round trip.
const FACTOR_MAX: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Command {
        line.parse()
            .unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn pairs(source: usize, target: usize) -> Pairs {
        Pairs {
            sources: Hosts::Some(vec![source]),
            targets: Hosts::Some(vec![target]),
        }
    }

    #[test]
    fn a_link_is_described_in_one_line() {
        let line = "set 0 1 delay 50ms rate 1g queue 1bdp loss 0.1% jitter 2ms reorder on";
        let change = LinkChange {
            shaper: ShaperChange {
                rate: Some(Rate::new(1_000_000_000)),
                queue: Some(QueueLimit::Products(1.0)),
            },
            delay: Some(Duration::from_millis(50)),
            jitter: Some(Duration::from_millis(2)),
            reorder: Some(true),
            loss: Some(0.001),
        };
        assert_eq!(parse(line), Command::Set(pairs(0, 1), change));
        let nothing = LinkChange::default();
        assert_eq!(parse("set 0 1"), Command::Set(pairs(0, 1), nothing));
    }

    #[test]
    fn bottlenecks_of_hosts_and_sites_are_described_too() {
        let change = ShaperChange {
            rate: Some(None),
            queue: Some(QueueLimit::Time(Duration::from_millis(10))),
        };
        assert_eq!(
            parse("access 0,2 up rate unlimited queue 10ms"),
            Command::Access(Hosts::Some(vec![0, 2]), Direction::Up, change)
        );
        let change = ShaperChange {
            rate: None,
            queue: Some(QueueLimit::Bytes(64_000)),
        };
        assert_eq!(
            parse("uplink 1 down queue 64k"),
            Command::Uplink(1, Direction::Down, change)
        );
        assert_eq!(parse("site 1 *"), Command::Site(1, Hosts::All));
    }

    #[test]
    fn every_command_has_its_words() {
        assert_eq!(parse("cut 0 1"), Command::Cut(pairs(0, 1)));
        assert_eq!(parse(" heal  0 1 "), Command::Heal(Some(pairs(0, 1))));
        assert_eq!(parse("heal"), Command::Heal(None));
        assert_eq!(parse("split 0 1"), Command::Split(pairs(0, 1)));
        assert_eq!(parse("join 0 1"), Command::Join(pairs(0, 1)));
        assert_eq!(parse("kill *"), Command::Kill(Hosts::All));
        assert_eq!(parse("revive *"), Command::Revive(Hosts::All));
        assert_eq!(parse("reset"), Command::Reset);
        assert_eq!(parse("stats"), Command::Stats);
        assert_eq!(parse("hosts"), Command::Hosts);
    }

    #[test]
    fn a_mistake_is_named() {
        let refused = |line: &str| line.parse::<Command>().unwrap_err();
        assert!(refused("").contains("is no command"));
        assert!(refused("cut 0").contains("cut FROM TO"));
        assert!(refused("set 0 1 delay").contains("`delay` needs a value"));
        assert!(refused("set 0 1 speed 1g").contains("`speed` cannot be set"));
        assert!(refused("access 0 up delay 1ms").contains("`delay` cannot be set"));
        assert!(refused("set 0 1 queue 1 bdp").contains("`bdp` needs a value"));
        assert!(refused("set 0 1 queue -1bdp").contains("no queue"));
        assert!(refused("access 0 left").contains("no direction"));
        assert!(refused("kill 0;1").contains("names no hosts"));
        assert!(refused("site 16 0").contains("no site"));
    }

    #[test]
    fn hosts_that_do_not_exist_are_named() {
        let hosts: Hosts = "0,3".parse().unwrap();
        assert_eq!(hosts.resolve(4), Ok(vec![0, 3]));
        assert_eq!(
            hosts.resolve(3),
            Err("there is no host 3, only 0 to 2".into())
        );
        assert_eq!(Hosts::All.resolve(2), Ok(vec![0, 1]));
    }
}
