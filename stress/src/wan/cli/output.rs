//! Output of several processes on one terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

/// How the output of a process is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// Each line says whose it is.
    Named,
    /// Standard output as it is, errors with the name.
    Plain,
    /// No standard output, errors with the name.
    Errors,
}

/// Makes a command's output readable here. It reads nothing.
pub fn capture(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
}

/// Copies the output of a captured child, line by line; the threads end with it.
pub fn copy(child: &mut Child, name: &str, voice: Voice) -> Vec<JoinHandle<()>> {
    let named = format!("{name}| ");
    let prefix = match voice {
        Voice::Named => Some(named.clone()),
        Voice::Plain => Some(String::new()),
        Voice::Errors => None,
    };
    let output = child.stdout.take().map(|output| {
        thread::spawn(move || match prefix {
            Some(prefix) => copy_lines(output, &prefix, &mut std::io::stdout()),
            None => copy_lines(output, "", &mut std::io::sink()),
        })
    });
    let errors = child
        .stderr
        .take()
        .map(|errors| thread::spawn(move || copy_lines(errors, &named, &mut std::io::stderr())));
    output.into_iter().chain(errors).collect()
}

fn copy_lines(source: impl Read, prefix: &str, target: &mut impl Write) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    while matches!(source.read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        // In one write, so that lines of others do not come in between.
        let whole = format!("{prefix}{}\n", text.trim_end_matches('\n'));
        let written = target.write_all(whole.as_bytes());
        if written.and_then(|()| target.flush()).is_err() {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_name() {
        let mut target = Vec::new();
        copy_lines(&b"one\ntwo \xff\nlast"[..], "host 3| ", &mut target);
        let text = String::from_utf8(target).unwrap();
        assert_eq!(text, "host 3| one\nhost 3| two \u{fffd}\nhost 3| last\n");
    }
}
