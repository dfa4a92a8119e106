//! Output of several processes on one terminal: each line says whose it is.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

/// Makes a command's output readable here. It reads nothing.
pub fn capture(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
}

/// Copies the output of a captured child, line by line; the threads end with it.
pub fn copy(child: &mut Child, name: &str) -> Vec<JoinHandle<()>> {
    let output = child.stdout.take().map(|output| {
        let name = name.to_owned();
        thread::spawn(move || copy_lines(output, &name, &mut std::io::stdout()))
    });
    let errors = child.stderr.take().map(|errors| {
        let name = name.to_owned();
        thread::spawn(move || copy_lines(errors, &name, &mut std::io::stderr()))
    });
    output.into_iter().chain(errors).collect()
}

fn copy_lines(source: impl Read, name: &str, target: &mut impl Write) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    while matches!(source.read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        // In one write, so that lines of others do not come in between.
        let whole = format!("{name}| {}\n", text.trim_end_matches('\n'));
        if target
            .write_all(whole.as_bytes())
            .and(target.flush())
            .is_err()
        {
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
        copy_lines(&b"one\ntwo \xff\nlast"[..], "host 3", &mut target);
        let text = String::from_utf8(target).unwrap();
        assert_eq!(text, "host 3| one\nhost 3| two \u{fffd}\nhost 3| last\n");
    }
}
