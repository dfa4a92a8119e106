//! The demonstration's output, for people or as JSON.
//!
//! On a terminal one line is overwritten; elsewhere there is one line per epoch, without escape
//! codes.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use serde_json::json;

use super::notes::{FaultSignal, Note};
use super::story::Story;
use crate::child::send_line;
use crate::failure::Result;

/// Where the story is told.
#[derive(Debug)]
pub struct Display {
    mode: Mode,
    steps: usize,
    steps_per_epoch: usize,
    start: Instant,
    /// Losses and images of the newest step, as far as members have told.
    current: Current,
    /// When and with how many bytes the last status was shown.
    last: (Instant, usize, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Json,
    Terminal,
    Plain,
}

#[derive(Clone, Copy, Debug, Default)]
struct Current {
    step: usize,
    loss: f32,
    images: usize,
    world_size: usize,
}

impl Display {
    /// For so many steps, or for an unknown number if 0.
    pub fn new(json: bool, steps: usize, steps_per_epoch: usize) -> Self {
        let mode = match (json, std::io::stdout().is_terminal()) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Terminal,
            (false, false) => Mode::Plain,
        };
        let start = Instant::now();
        let current = Current::default();
        Self {
            mode,
            steps,
            steps_per_epoch,
            start,
            current,
            last: (start, 0, 0),
        }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Shows what the process at `place` said; `story` has recorded it.
    pub fn show(&mut self, story: &Story, place: usize, note: &Note) -> Result<()> {
        if let Note::Step {
            step,
            contributors,
            loss,
            images,
            ..
        } = note
        {
            let told = Current {
                step: *step,
                loss: *loss,
                images: *images,
                world_size: contributors.len(),
            };
            return self.show_step(story, told);
        }
        if let Note::Synced {
            received_bytes: 0, ..
        } = note
        {
            return Ok(()); // It had it; so it is at most syncs.
        }
        if self.mode == Mode::Json {
            return self.write_json(place, note);
        }
        match words(story, place, note) {
            Some(words) => self.say(&words),
            None => Ok(()),
        }
    }

    /// Something that no peer said.
    pub fn tell(&mut self, event: &str, words: &str) -> Result<()> {
        if self.mode == Mode::Json {
            let line = json!({ "event": event, "text": words, "seconds": self.seconds() });
            return send_line(&mut std::io::stdout(), &line);
        }
        self.say(words)
    }

    /// The last line, for machines or for people.
    pub fn finish(&mut self, summary: &impl serde::Serialize, text: &str) -> Result<()> {
        if self.mode == Mode::Json {
            return send_line(&mut std::io::stdout(), summary);
        }
        self.say(text)
    }

    fn show_step(&mut self, story: &Story, told: Current) -> Result<()> {
        if told.step > self.current.step {
            self.show_status(story)?;
            self.current = Current {
                step: told.step,
                ..Current::default()
            };
        }
        if told.step == self.current.step {
            self.current.loss += told.loss;
            self.current.images += told.images;
            self.current.world_size = told.world_size;
        }
        Ok(())
    }

    /// The step that all members have told of.
    fn show_status(&mut self, story: &Story) -> Result<()> {
        let Current {
            step,
            loss,
            images,
            world_size,
        } = self.current;
        let is_epoch_end = (step + 1).is_multiple_of(self.steps_per_epoch);
        let is_due = self.last.0.elapsed().as_millis() >= REFRESH_MS;
        if !is_epoch_end && (self.mode != Mode::Terminal || !is_due) {
            return Ok(());
        }
        let moved: u64 = story.lives.iter().map(|life| life.moved_bytes).sum();
        let (then, step_then, moved_then) =
            std::mem::replace(&mut self.last, (Instant::now(), step, moved));
        let seconds = then.elapsed().as_secs_f64().max(1e-9);
        let steps_per_second = (step - step_then) as f64 / seconds;
        let megabytes_per_second = moved.saturating_sub(moved_then) as f64 / 1e6 / seconds;
        let loss = f64::from(loss) / images.max(1) as f64;
        let epoch = step / self.steps_per_epoch + 1;
        if self.mode == Mode::Json {
            let line = json!({
                "event": "progress", "step": step, "steps": self.steps, "epoch": epoch,
                "world_size": world_size, "steps_per_second": steps_per_second,
                "mb_per_second": megabytes_per_second, "loss": loss, "seconds": self.seconds(),
            });
            return send_line(&mut std::io::stdout(), &line);
        }
        let of = match self.steps {
            0 => String::new(),
            steps => format!("/{steps}"),
        };
        let status = format!(
            "step {:>4}{of}: {world_size} members, {steps_per_second:5.1} steps/s, \
             {megabytes_per_second:6.1} MB/s, loss {loss:.4}",
            step + 1,
        );
        if self.mode == Mode::Terminal {
            return write(&format!("\r\x1b[K{status}"));
        }
        self.say(&status)
    }

    /// A line that stays, or several if it is too long for one.
    fn say(&self, words: &str) -> Result<()> {
        let start = if self.mode == Mode::Terminal {
            "\r\x1b[K"
        } else {
            ""
        };
        write(&format!("{start}{}\n", lines(self.seconds(), words)))
    }

    fn write_json(&self, place: usize, note: &Note) -> Result<()> {
        let mut line = json!({ "place": place, "seconds": self.seconds() });
        if let (Some(line), Ok(serde_json::Value::Object(fields))) =
            (line.as_object_mut(), serde_json::to_value(note))
        {
            line.extend(fields);
        }
        send_line(&mut std::io::stdout(), &line)
    }
}

/// Words with the time before them, in lines of at most [`COLUMNS`].
fn lines(seconds: f64, words: &str) -> String {
    let stamp = format!("[{seconds:6.2} s] ");
    let indent = " ".repeat(stamp.len());
    let options = textwrap::Options::new(COLUMNS)
        .initial_indent(&stamp)
        .subsequent_indent(&indent);
    textwrap::fill(words, options)
}

/// What a note means, for people; [`Display::show_step`] has the steps.
fn words(story: &Story, place: usize, note: &Note) -> Option<String> {
    match note {
        Note::Joined {
            rank,
            world_size,
            is_newcomer,
            ..
        } => {
            let what = if *is_newcomer { "a newcomer, " } else { "" };
            Some(format!(
                "peer {place} is in: {what}rank {rank} of {world_size}"
            ))
        }
        Note::Synced {
            step,
            root,
            received_bytes,
            sources,
            ..
        } => Some(format!(
            "peer {place} got the state of step {step}: {:.2} MiB from {sources} peers ({})",
            *received_bytes as f64 / f64::from(1 << 20),
            start_of(root),
        )),
        Note::Fault {
            signal,
            done_bytes,
            total_bytes,
            step,
            ..
        } => {
            let percent = 100 * done_bytes / total_bytes.max(&1);
            let what = match signal {
                FaultSignal::Kill => "is killed",
                FaultSignal::Stop => "is stopped",
            };
            Some(format!(
                "peer {place} {what} in step {step}, with {percent} % of its bytes moved"
            ))
        }
        Note::Lost {
            peer,
            has_left,
            reason,
            ..
        } => {
            let lost = story
                .place_of(*peer)
                .map_or("?".to_owned(), |lost| lost.to_string());
            Some(if *has_left {
                format!("peer {place} repeats the step: peer {lost} left, as planned")
            } else {
                format!("peer {place} repeats the step because peer {lost} was lost: {reason}")
            })
        }
        Note::Evicted { reason } => Some(format!(
            "peer {place} was evicted and rejoins as a newcomer: {reason}"
        )),
        Note::Left => Some(format!("peer {place} left, as planned")),
        Note::Finished {
            digest, accuracy, ..
        } => Some(format!(
            "peer {place} has finished: accuracy {:.1} %, weights {}",
            100.0 * accuracy,
            start_of(digest),
        )),
        Note::Failed { error } => Some(format!("peer {place} cannot go on: {error}")),
        Note::Step { .. } => None,
    }
}

/// As much of a digest as a person compares.
fn start_of(digest: &str) -> &str {
    digest.get(..8).unwrap_or(digest)
}

/// Whoever watched may be gone; the training goes on to its end and its exit status.
fn write(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    Ok(())
}

/// Width of a terminal that nobody has made wider.
const COLUMNS: usize = 80;
/// How often the line on a terminal changes, in milliseconds.
const REFRESH_MS: u128 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(has_left: bool) -> Option<String> {
        let reason = "its process ended".into();
        let note = Note::Lost {
            step: 4,
            peer: 9,
            has_left,
            reason,
        };
        words(&Story::default(), 0, &note)
    }

    #[test]
    fn who_left_as_planned_is_not_told_as_lost() {
        assert_eq!(
            lost(true).unwrap(),
            "peer 0 repeats the step: peer ? left, as planned"
        );
        assert!(lost(false).unwrap().contains("was lost: its process ended"));
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let text = lines(12.0, &"every word of it ".repeat(20));
        assert!(text.lines().count() > 4);
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.starts_with("           "))
        );
    }
}
