//! The demonstration as a person, or a machine, watches it.
//!
//! On a terminal one line is written over and over; elsewhere there is a line an epoch and no
//! escape code.

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
            world_size,
            loss,
            images,
            ..
        } = note
        {
            return self.show_step(story, (*step, *world_size), (*loss, *images));
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

    fn show_step(&mut self, story: &Story, at: (usize, usize), done: (f32, usize)) -> Result<()> {
        let ((step, world_size), (loss, images)) = (at, done);
        if step > self.current.step {
            self.show_status(story)?;
            self.current = Current {
                step,
                ..Current::default()
            };
        }
        if step == self.current.step {
            self.current.loss += loss;
            self.current.images += images;
            self.current.world_size = world_size;
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
            steps => format!(" of {steps}"),
        };
        let status = format!(
            "step {:>4}{of}, epoch {epoch:>2}: {world_size} members, {steps_per_second:5.1} steps/s, \
             {megabytes_per_second:6.1} MB/s, loss {loss:.4}",
            step + 1,
        );
        if self.mode == Mode::Terminal {
            return write(&format!("\r\x1b[K{status}"));
        }
        self.say(&status)
    }

    /// A line that stays.
    fn say(&self, words: &str) -> Result<()> {
        let seconds = self.seconds();
        let start = if self.mode == Mode::Terminal {
            "\r\x1b[K"
        } else {
            ""
        };
        write(&format!("{start}[{seconds:6.2} s] {words}\n"))
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
            "peer {place} got the state of step {step}, {:.2} MiB from {sources} others: {}",
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
                FaultSignal::Kill => "kills itself",
                FaultSignal::Stop => "is stopped and says nothing more",
            };
            Some(format!(
                "peer {place} {what} in step {step}, with {percent} % of the operation's bytes moved"
            ))
        }
        Note::Lost { peer, reason, .. } => {
            let lost = story
                .place_of(*peer)
                .map_or("?".to_owned(), |lost| lost.to_string());
            Some(format!(
                "peer {place} hears that peer {lost} is lost ({reason}): it repeats the step"
            ))
        }
        Note::Evicted { reason } => Some(format!(
            "peer {place} learned that it was evicted, and comes back: {reason}"
        )),
        Note::Left => Some(format!("peer {place} was told to leave, and did")),
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
    digest.get(..12).unwrap_or(digest)
}

/// Whoever watched may be gone; the training goes on to its end and its exit status.
fn write(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    Ok(())
}

/// How often the line on a terminal changes, in milliseconds.
const REFRESH_MS: u128 = 100;
