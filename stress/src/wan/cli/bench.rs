//! What the subcommands that run `ccl bench` in a network have in common.

use std::path::PathBuf;

use clap::Args;

use crate::wan::cli::options::NetworkOptions;
use crate::wan::cli::session::EndOptions;
use crate::wan::error::{Error, Result};

/// The network, and the command that runs in it.
#[derive(Args, Debug)]
pub struct BenchOptions {
    #[command(flatten)]
    pub network: NetworkOptions,
    #[command(flatten)]
    pub end: EndOptions,
    /// The `ccl` command. Default: the one beside this program.
    #[arg(long, value_name = "PATH")]
    ccl: Option<PathBuf>,
}

impl BenchOptions {
    /// The `ccl` command: the one that was named, or that in the folder of this program.
    pub fn ccl_command(&self) -> Result<PathBuf> {
        let beside = || Some(std::env::current_exe().ok()?.with_file_name("ccl"));
        let missing = || Error::Command("build ccl-cli, or name the `ccl` command by --ccl".into());
        let path = self.ccl.clone().or_else(beside);
        path.filter(|path| path.is_file()).ok_or_else(missing)
    }
}
