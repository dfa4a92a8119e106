//! Processes of other libraries: how they are started, told what to do, and understood.
//!
//! They are the programs of `stress/peers`. Each says `{"Ok": "its name"}` when it can begin. An
//! order is a line `COUNT IN_PLACE WARMUP ITERATIONS CHECK` of numbers; the answer is a line with
//! what each of its ranks spent, or `{"Err": "words"}`. The end of the input is the end.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::plan::{Cell, Effort};
use super::results::Spent;
use crate::bench::hosts::{Host, network_of};
use crate::child::{Answer, Child};
use crate::failure::{Context, Failure, Result};

/// All processes of one other library.
#[derive(Debug)]
pub struct Foreign {
    children: Vec<Speaker>,
    /// What it says it is, with its version.
    pub version: String,
    /// Held as long as the processes need the file.
    _agent: Option<Agent>,
}

/// A process whose answers are waited for with a limit: what it does is not in our hands.
#[derive(Debug)]
struct Speaker {
    name: String,
    child: Child,
    lines: Receiver<String>,
}

/// What one rank spent on an order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct RankSpent {
    iteration_ns: Vec<u64>,
    cpu_ns: u64,
    extra_rss_bytes: u64,
    wrong: u64,
}

/// Where and how the processes run.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// One for each process.
    pub hosts: &'a [Host],
    /// Where `stress/peers.sh` has put the programs.
    pub folder: &'a Path,
    /// Whether their errors are shown.
    pub is_verbose: bool,
}

impl Place<'_> {
    fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        let missing = || format!("{} is missing; run stress/peers.sh", path.display());
        path.canonicalize().map_err(|_| Failure::new(missing()))
    }

    /// A command on a host.
    fn command(&self, host: &Host, words: &[String]) -> Command {
        let mut all = host.launcher.iter().chain(words);
        let mut command = Command::new(all.next().map_or("", String::as_str));
        command.args(all);
        if !self.is_verbose {
            command.stderr(Stdio::null());
        }
        command
    }
}

impl Foreign {
    /// A process of gloo for each host.
    pub fn start_gloo(place: Place<'_>) -> Result<Self> {
        let program = place.program("gloo")?.to_string_lossy().into_owned();
        let mut children = Vec::new();
        for (rank, host) in place.hosts.iter().enumerate() {
            let words = [
                program.clone(),
                rank.to_string(),
                place.hosts.len().to_string(),
                host.address.to_string(),
            ];
            children.push(Speaker::start(
                format!("rank {rank}"),
                place.command(host, &words),
            )?);
        }
        let (first, others) = children.split_first_mut().expect("a world has processes");
        let port: u16 = first.answer(START_LIMIT)?;
        for other in others {
            let line = format!("{} {port}", place.hosts[0].address);
            other.child.send_words(&line)?;
        }
        Self::started(children, None)
    }

    /// The processes of MPI, one for each host, started by `mpirun` on the first.
    pub fn start_mpi(place: Place<'_>) -> Result<Self> {
        let program = place.program("mpi")?.to_string_lossy().into_owned();
        let agent = Agent::for_hosts(place.hosts)?;
        let mut words = mpirun(
            place.hosts,
            agent.as_ref().map(|agent| agent.path.as_path()),
        )?;
        words.push(program);
        let command = place.command(&place.hosts[0], &words);
        Self::started(vec![Speaker::start("mpirun".into(), command)?], agent)
    }

    /// Lets the processes end by themselves.
    pub fn finish(self) -> Result<()> {
        for mut speaker in self.children {
            speaker.child.close();
            // Who takes longer is ended when it is dropped.
            let _ = speaker.child.wait_for(END_LIMIT)?;
        }
        Ok(())
    }

    fn started(mut children: Vec<Speaker>, agent: Option<Agent>) -> Result<Self> {
        let mut version = String::new();
        for child in &mut children {
            version = child.answer(START_LIMIT)?;
        }
        Ok(Self {
            children,
            version,
            _agent: agent,
        })
    }

    /// Measures its all-reduce.
    pub fn measure(&mut self, cell: &Cell, effort: Effort) -> Result<Spent> {
        let line = format!(
            "{} {} {} {} {}",
            cell.count(),
            u8::from(cell.in_place),
            effort.warmup,
            effort.iterations,
            u8::from(effort.check)
        );
        for child in &mut self.children {
            child.child.send_words(&line)?;
        }
        let mut ranks: Vec<RankSpent> = Vec::new();
        for child in &mut self.children {
            ranks.extend(child.answer::<Vec<RankSpent>>(ORDER_LIMIT)?);
        }
        if ranks.len() != cell.world_size as usize {
            let text = format!("{} of {} ranks answered", ranks.len(), cell.world_size);
            return Err(Failure::new(text));
        }
        Ok(together(&ranks, effort.iterations))
    }
}

/// The slowest rank's time, everybody's processor time, the worst rank's memory.
fn together(ranks: &[RankSpent], iterations: u32) -> Spent {
    let batch = |rank: &RankSpent| rank.iteration_ns.iter().sum::<u64>();
    let slowest = ranks.iter().map(batch).max().unwrap_or(0);
    let cpu: u64 = ranks.iter().map(|rank| rank.cpu_ns).sum();
    let extra = ranks.iter().map(|rank| rank.extra_rss_bytes).max();
    Spent {
        time_ns: slowest as f64 / f64::from(iterations),
        cpu_ns: Some(cpu as f64 / f64::from(iterations)),
        extra_bytes: extra,
        wrong: ranks.iter().map(|rank| rank.wrong).sum(),
        algorithm: None,
    }
}

/// Open MPI over TCP and nothing else. Nobody is bound to a processor, and who waits gives way,
/// as it must where processes outnumber processors.
fn mpirun(hosts: &[Host], agent: Option<&Path>) -> Result<Vec<String>> {
    let ipv6 = || Failure::new("only hosts with IPv4 addresses are supported");
    let network = network_of(hosts).ok_or_else(ipv6)?;
    let mut words = vec!["mpirun".to_owned()];
    let mut add = |text: &str| words.extend(text.split_whitespace().map(str::to_owned));
    add("--allow-run-as-root --oversubscribe --bind-to none");
    add("--mca pml ob1 --mca btl tcp,self --mca mpi_yield_when_idle 1");
    add(&format!("--mca btl_tcp_if_include {network}"));
    add(&format!("--mca oob_tcp_if_include {network}"));
    if let Some(agent) = agent {
        let addresses: Vec<String> = hosts.iter().map(|it| it.address.to_string()).collect();
        add(&format!("--host {}", addresses.join(",")));
        add("--mca plm_rsh_agent");
        words.push(agent.to_string_lossy().into_owned());
    }
    words.extend(["-n".into(), hosts.len().to_string()]);
    Ok(words)
}

/// What `mpirun` calls instead of ssh: a script that knows the launchers. Removed when dropped.
#[derive(Debug)]
struct Agent {
    path: PathBuf,
}

impl Agent {
    /// `None` if all processes are on this host.
    fn for_hosts(hosts: &[Host]) -> Result<Option<Self>> {
        if hosts.iter().all(|host| host.launcher.is_empty()) {
            return Ok(None);
        }
        let name = format!("ccl-bench-{}-mpi-agent", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, agent_script(hosts)).context("writing mpirun's agent")?;
        let agent = Self { path };
        let permissions = Permissions::from_mode(0o700);
        fs::set_permissions(&agent.path, permissions).context("writing mpirun's agent")?;
        Ok(Some(agent))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A file in a temporary folder does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

/// Its first argument is an address, the rest a command.
fn agent_script(hosts: &[Host]) -> String {
    let quoted = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    let mut script = "#!/bin/sh\naddress=$1\nshift\ncase $address in\n".to_owned();
    for host in hosts {
        let words: Vec<String> = host.launcher.iter().map(quoted).collect();
        let line = format!(
            "{}) exec {} /bin/sh -c \"$*\" ;;\n",
            host.address,
            words.join(" ")
        );
        script.push_str(&line);
    }
    script.push_str("esac\nexit 1\n");
    script
}

impl Speaker {
    fn start(name: String, command: Command) -> Result<Self> {
        let mut child = Child::start(name.clone(), command)?;
        let output = child.take_output();
        let lines = output.map(read_answers).unwrap_or_else(|| channel().1);
        Ok(Self { name, child, lines })
    }

    fn answer<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T> {
        let line = self.lines.recv_timeout(limit).map_err(|error| {
            let what = match error {
                std::sync::mpsc::RecvTimeoutError::Timeout => "does not answer",
                std::sync::mpsc::RecvTimeoutError::Disconnected => "ended; --verbose shows why",
            };
            Failure::new(format!("{} {what}", self.name))
        })?;
        parse_answer(&line).map_err(|words| Failure::new(format!("{}: {words}", self.name)))
    }
}

fn parse_answer<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    let answer: Answer<T> =
        serde_json::from_str(line).map_err(|error| format!("unexpected answer: {error}"))?;
    answer
}

/// Reads its output in a thread, which ends with it. Lines that are no answers are left out.
fn read_answers(output: BufReader<ChildStdout>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let lines = output.lines().map_while(std::result::Result::ok);
        for line in lines.filter(|line| line.starts_with('{')) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// How long the processes may take to find each other. Torch alone needs seconds to load.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long they may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long an order may take: the budget divides time, so this is for what hangs.
const ORDER_LIMIT: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::hosts::launched;

    #[test]
    fn answers_are_understood() {
        let line = r#"{"Ok":[{"iteration_ns":[5,7],"cpu_ns":4,"extra_rss_bytes":9,"wrong":0},
                      {"iteration_ns":[1,2],"cpu_ns":6,"extra_rss_bytes":8,"wrong":1}]}"#;
        let ranks: Vec<RankSpent> = parse_answer(line).unwrap();
        let spent = together(&ranks, 2);
        assert_eq!(spent.time_ns, 6.0, "12 ns of the slowest, in two calls");
        assert_eq!(spent.cpu_ns, Some(5.0), "10 ns of both, in two calls");
        assert_eq!((spent.extra_bytes, spent.wrong), (Some(9), 1));
        assert_eq!(parse_answer(r#"{"Ok":"MPI"}"#), Ok("MPI".to_owned()));
        let refused: Result<u16, String> = parse_answer(r#"{"Err":"no memory"}"#);
        assert_eq!(refused, Err("no memory".to_owned()));
        assert!(parse_answer::<u16>("{Ok}").is_err());
    }

    #[test]
    fn lines_that_are_no_answers_are_left_out() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo warning; echo '{\"Ok\":7}'; cat"]);
        let mut speaker = Speaker::start("it".into(), command).unwrap();
        assert_eq!(speaker.answer::<u16>(START_LIMIT).unwrap(), 7);
    }

    #[test]
    fn the_end_of_a_process_is_no_answer() {
        let mut speaker = Speaker::start("it".into(), Command::new("true")).unwrap();
        let failure = speaker.answer::<u16>(START_LIMIT).unwrap_err();
        assert_eq!(failure.to_string(), "it ended; --verbose shows why");
    }

    #[test]
    fn mpi_uses_tcp_in_the_network_of_the_hosts() {
        let here = mpirun(&[Host::here(), Host::here()], None)
            .unwrap()
            .join(" ");
        assert!(here.contains("--mca btl tcp,self"), "{here}");
        assert!(here.contains("btl_tcp_if_include 127.0.0.0/24"), "{here}");
        assert!(here.ends_with("-n 2") && !here.contains("--host"), "{here}");
        let addresses = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let hosts = launched(&addresses, "ssh {address}").unwrap();
        let there = mpirun(&hosts, Some(Path::new("/x y"))).unwrap();
        assert!(there.contains(&"10.0.0.1,10.0.0.2".to_owned()));
        assert!(there.contains(&"/x y".to_owned()));
    }

    #[test]
    fn the_agent_starts_what_it_is_told_where_it_is_told() {
        let addresses = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let hosts = launched(&addresses, "echo \"it's\" {host}").unwrap();
        let agent = Agent::for_hosts(&hosts).unwrap().unwrap();
        let mut command = Command::new("/bin/sh");
        command.arg(&agent.path).args(["10.0.0.2", "a b", "c"]);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"it's 1 /bin/sh -c a b c\n");
        assert!(Agent::for_hosts(&[Host::here()]).unwrap().is_none());
    }
}
