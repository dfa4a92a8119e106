//! Options that describe a network.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::wan::error::Result;
use crate::wan::host::{Sysctl, enter_user_namespace, is_root};
use crate::wan::network::{Config, Network};
use crate::wan::packet::HOSTS_MAX;
use crate::wan::preset::Preset;
use crate::wan::units::Rate;

/// How the network is.
#[derive(Args, Debug)]
pub struct NetworkOptions {
    /// Number of hosts. Host N has the address 10.77.0.(N+1).
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = parse_hosts)]
    hosts: usize,
    /// A network with a name. Without one, everything arrives at once.
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,
    /// Rate of each link in each direction, in bits per second, such as 250m. Default: 1g with a
    /// preset, otherwise unlimited.
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// A command for the network before it starts, such as 'set 0 1 loss 1%'; may be repeated.
    #[arg(long = "do", value_name = "COMMAND")]
    commands: Vec<String>,
    /// A setting of each host's network, such as net.ipv4.tcp_congestion_control=bbr; may be
    /// repeated. Default: net.ipv4.tcp_min_tso_segs=32.
    #[arg(long, value_name = "NAME=VALUE", value_parser = Sysctl::parse)]
    sysctl: Vec<Sysctl>,
    /// Decides which segments are lost.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Use a user namespace, as happens by itself for users other than root.
    #[arg(long)]
    rootless: bool,
    /// Do not ask for a real-time priority.
    #[arg(long)]
    no_real_time: bool,
}

impl NetworkOptions {
    /// Starts the network, and says what the system could not do.
    pub fn start(&self, control: Option<PathBuf>) -> Result<Network> {
        if self.rootless || !is_root() {
            enter_user_namespace()?;
        }
        let network = Network::start(&Config {
            control,
            ..self.config()
        })?;
        for note in network.notes() {
            eprintln!("ccl-stress: {note}");
        }
        Ok(network)
    }

    /// What tables call it, such as `ocean, 500m`.
    pub fn name(&self) -> String {
        let preset = self.preset.and_then(|preset| preset.to_possible_value());
        let mut words: Vec<String> = preset.iter().map(|it| it.get_name().into()).collect();
        words.extend(self.rate.map(|rate| rate.to_string()));
        words.extend(self.commands.iter().cloned());
        match words.is_empty() {
            true => "emulated".into(),
            false => words.join(", "),
        }
    }

    fn config(&self) -> Config {
        let mut commands = match (self.preset, self.rate) {
            (Some(preset), rate) => {
                let gigabit = Rate::new(1_000_000_000);
                let rate = rate.or(gigabit).expect("a gigabit is not 0");
                preset.commands(self.hosts, rate)
            }
            (None, Some(rate)) => vec![format!("set * * rate {rate}")],
            (None, None) => Vec::new(),
        };
        commands.extend(self.commands.iter().cloned());
        let default = Config::default();
        let mut sysctls = default.sysctls;
        sysctls.extend(self.sysctl.iter().cloned());
        Config {
            hosts: self.hosts,
            commands,
            sysctls,
            is_real_time: !self.no_real_time,
            seed: self.seed,
            control: None,
        }
    }
}

fn parse_hosts(text: &str) -> Result<usize, String> {
    let hosts = text.parse().ok();
    hosts
        .filter(|hosts| (1..=HOSTS_MAX).contains(hosts))
        .ok_or_else(|| format!("a network has 1 to {HOSTS_MAX} hosts"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: NetworkOptions,
    }

    fn name(words: &[&str]) -> String {
        let words = ["x"].iter().chain(words);
        Line::try_parse_from(words).unwrap().options.name()
    }

    #[test]
    fn a_network_has_the_name_of_what_it_is() {
        assert_eq!(name(&[]), "emulated");
        assert_eq!(
            name(&["--preset", "ocean", "--rate", "500m"]),
            "ocean, 500m"
        );
        let lossy = ["--preset", "lan", "--do", "set * * loss 1%"];
        assert_eq!(name(&lossy), "lan, set * * loss 1%");
    }
}
