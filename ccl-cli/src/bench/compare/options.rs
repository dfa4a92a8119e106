//! The command line of `ccl bench compare`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::contestant::Family;
use super::plan::Cell;
use crate::bench::hosts::{Host, launched};
use crate::bench::sizes::Sizes;
use crate::bench::sizes::parse_time;
use crate::failure::{Failure, Result};

/// Options of `ccl bench compare`.
#[derive(Args, Debug)]
pub struct Options {
    /// Numbers of processes. Default: 2,4, or one for each of --hosts.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    worlds: Vec<u32>,
    /// Buffer sizes in bytes: FROM:TO:xFACTOR, or a list with commas.
    #[arg(
        long,
        value_name = "RANGE",
        default_value = "4,4KiB,64KiB,1MiB,16MiB,64MiB"
    )]
    sizes: Sizes,
    /// Whether the result replaces the input.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "out-of-place,in-place"
    )]
    forms: Vec<Form>,
    /// Who is compared.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "ccl,gloo,mpi,sockets"
    )]
    pub contestants: Vec<Family>,
    /// Time in all, such as 90s or 10m. Each contestant is measured at least once, however long
    /// that takes.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    pub budget: Duration,
    /// Folder with the programs that stress/peers.sh installs.
    #[arg(long, value_name = "FOLDER", default_value = "target/peers")]
    pub peers: PathBuf,
    /// Name of the network in tables.
    #[arg(long, value_name = "NAME", default_value = "loopback")]
    pub network: String,
    /// Addresses of other hosts, one for each process of the largest world.
    #[arg(
        long,
        value_name = "ADDRESS,…",
        value_delimiter = ',',
        requires = "launch"
    )]
    hosts: Vec<IpAddr>,
    /// What starts a program on such a host, such as 'ssh {address}' or 'ccl-stress wan exec {host}
    /// --'; {host} is its place in --hosts. Words with spaces are quoted as in a shell.
    #[arg(long, value_name = "COMMAND", requires = "hosts")]
    launch: Option<String>,
    /// TCP congestion control of ccl and plain sockets; the others use the system's.
    #[arg(long, value_name = "NAME")]
    pub congestion_control: Option<String>,
    /// Show results that were saved, instead of measuring.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub from: Vec<PathBuf>,
    /// Save the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Draw the results.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Print the table as Markdown.
    #[arg(long)]
    pub markdown: bool,
    /// Print the results as one line of JSON.
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Show what the other programs say.
    #[arg(long)]
    pub verbose: bool,
}

/// `--forms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Into another buffer.
    OutOfPlace,
    /// Into the buffer of the input.
    InPlace,
}

impl Options {
    /// Checks what clap cannot.
    pub fn validate(&self) -> Result<()> {
        let worlds = self.worlds();
        let largest = worlds.iter().copied().max().unwrap_or(0);
        if worlds.iter().any(|&world| world < 2) || largest > WORLD_SIZE_MAX {
            let text = format!("--worlds are numbers from 2 to {WORLD_SIZE_MAX}");
            return Err(Failure::new(text));
        }
        if !self.hosts.is_empty() && self.hosts.len() < largest as usize {
            return Err(Failure::new(format!("--hosts must name {largest} hosts")));
        }
        let largest_bytes = self.sizes.0.iter().copied().max().unwrap_or(0);
        if self.sizes.0.iter().any(|&bytes| bytes < 4) || largest_bytes > BYTES_MAX {
            let text = format!("--sizes go from 4 bytes to {} GiB", BYTES_MAX >> 30);
            return Err(Failure::new(text));
        }
        Ok(())
    }

    /// Numbers of processes.
    pub fn worlds(&self) -> Vec<u32> {
        if !self.worlds.is_empty() {
            return self.worlds.clone();
        }
        match u32::try_from(self.hosts.len()) {
            Ok(0) => vec![2, 4],
            hosts => vec![hosts.unwrap_or(u32::MAX)],
        }
    }

    /// The all-reduces of a world, in the order in which they are measured: buffers grow, so that
    /// the memory of the first round is not what larger ones have left.
    pub fn cells(&self, world_size: u32) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &form in &self.forms {
            cells.extend(self.sizes.0.iter().map(|&bytes| Cell {
                world_size,
                in_place: form == Form::InPlace,
                bytes: bytes / 4 * 4,
            }));
        }
        cells.sort_unstable_by_key(|cell| (cell.bytes, cell.in_place));
        cells.dedup();
        cells
    }

    /// The hosts of a world, one for each process.
    pub fn hosts(&self, world_size: u32) -> Result<Vec<Host>> {
        let mut hosts = match &self.launch {
            Some(template) => launched(&self.hosts, template)?,
            None => vec![Host::here(); world_size as usize],
        };
        hosts.truncate(world_size as usize);
        Ok(hosts)
    }
}

/// Most processes: each contestant has as many.
const WORLD_SIZE_MAX: u32 = 64;
/// Largest buffer, in bytes: MPI counts elements in 31 bits, and all contestants have two buffers.
const BYTES_MAX: u64 = 4 << 30;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(text: &str) -> Options {
        Line::try_parse_from(std::iter::once("x").chain(text.split_whitespace()))
            .unwrap()
            .options
    }

    #[test]
    fn a_world_has_every_size_in_both_forms() {
        let cells = parse("--sizes 1MiB,4,6").cells(4);
        let expected = [(false, 4), (true, 4), (false, 1 << 20), (true, 1 << 20)];
        let found: Vec<_> = cells.iter().map(|it| (it.in_place, it.bytes)).collect();
        assert_eq!(found, expected);
        assert_eq!(parse("--forms in-place --sizes 8").cells(2).len(), 1);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        for text in [
            "--worlds 1",
            "--worlds 65",
            "--sizes 0",
            "--sizes 8GiB",
            "--worlds 3 --hosts 10.0.0.1,10.0.0.2 --launch ssh",
        ] {
            assert!(parse(text).validate().is_err(), "{text}");
        }
        assert!(parse("").validate().is_ok());
    }

    #[test]
    fn a_smaller_world_uses_the_first_hosts() {
        let options = parse("--worlds 2 --hosts 10.0.0.1,10.0.0.2,10.0.0.3 --launch ssh");
        assert!(options.validate().is_ok());
        let hosts = options.hosts(2).unwrap();
        assert_eq!(hosts.len(), 2);
        assert_eq!(hosts[0].address.to_string(), "10.0.0.1");
        let hosts = "--hosts 10.0.0.1,10.0.0.2,10.0.0.3 --launch ssh";
        assert_eq!(parse(hosts).worlds(), [3]);
        assert_eq!(parse("").worlds(), [2, 4]);
        assert_eq!(parse("").hosts(4).unwrap(), vec![Host::here(); 4]);
    }
}
