//! `ccl-stress wan exec` and `wan ctl`: talking to a network that runs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use nix::sched::{CloneFlags, setns};

use crate::wan::cli::CONTROL_VARIABLE;
use crate::wan::control::{Place, Reply, ask};
use crate::wan::error::{Context, Error, Result};

/// Options of `ccl-stress wan exec`.
#[derive(Args, Debug)]
pub struct ExecOptions {
    #[command(flatten)]
    socket: Socket,
    /// Index of the host.
    host: usize,
    /// The command. It is killed when the network ends.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Options of `ccl-stress wan ctl`.
#[derive(Args, Debug)]
pub struct ControlOptions {
    #[command(flatten)]
    socket: Socket,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    /// What to do, such as 'cut 0 1', 'set * * loss 1%' or stats; see docs/wan.md.
    #[arg(required = true, value_name = "COMMAND")]
    words: Vec<String>,
}

#[derive(Args, Debug)]
struct Socket {
    /// Control socket of the network. Default: that of the `wan run` which started this command.
    #[arg(long, value_name = "PATH")]
    ctl: Option<PathBuf>,
}

impl Socket {
    fn path(&self) -> Result<PathBuf> {
        let inherited = || std::env::var_os(CONTROL_VARIABLE).map(PathBuf::from);
        self.ctl.clone().or_else(inherited).ok_or_else(|| {
            let text = format!("name the network by --ctl PATH or {CONTROL_VARIABLE}=PATH");
            Error::Command(text)
        })
    }

    fn ask(&self, line: &str) -> Result<Reply> {
        match ask(&self.path()?, line)? {
            Reply::Refused(words) => Err(Error::Command(words)),
            reply => Ok(reply),
        }
    }
}

/// Sends a command to a network, and prints its answer.
pub fn control(options: &ControlOptions) -> Result<ExitCode> {
    let reply = options.socket.ask(&options.words.join(" "))?;
    match reply {
        reply if options.json => {
            let text = serde_json::to_string(&reply).expect("a reply is plain data");
            println!("{text}");
        }
        Reply::Stats(stats) => println!("{stats}"),
        Reply::Hosts(places) => {
            for place in places {
                let path = place.namespace.display();
                println!("{} {} {path}", place.host, place.address);
            }
        }
        Reply::Done | Reply::Refused(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes a command in a host. Returns only if that fails.
pub fn exec(options: &ExecOptions) -> Result<ExitCode> {
    let Reply::Hosts(places) = options.socket.ask("hosts")? else {
        return Err(Error::Ended);
    };
    let mut places = places.into_iter();
    let place = places.find(|place| place.host == options.host);
    let missing = || Error::Command(format!("there is no host {}", options.host));
    enter(&place.ok_or_else(missing)?)?;
    let mut words = options.command.iter();
    let program = words.next().expect("clap asks for a command");
    let error = Command::new(program).args(words).exec();
    Err(error).context(&program.to_string_lossy())
}

/// Moves this process, which has one thread, into a host.
fn enter(place: &Place) -> Result<()> {
    let open = |path: &Path| File::open(path).context(&path.to_string_lossy());
    // Opened before the user namespace is entered, from where they may not be visible.
    let network = open(&place.namespace)?;
    let same = |path: &Path| fs::read_link(path).ok();
    if same(&place.user_namespace) != same(Path::new("/proc/self/ns/user")) {
        let user = open(&place.user_namespace)?;
        let entered = setns(user, CloneFlags::CLONE_NEWUSER);
        entered.context("entering the network's user namespace")?;
    }
    let entered = setns(network, CloneFlags::CLONE_NEWNET);
    entered.context("entering the host's network namespace")
}
