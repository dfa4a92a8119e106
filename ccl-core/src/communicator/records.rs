//! Records: small entries of all members, sealed in one order that survives every loss.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::communicator::Communicator;
use crate::driver::peer::call::RecordCall;
use crate::driver::peer::completion::Finished;
use crate::error::{Error, Result};
use crate::ids::StreamId;
use crate::outcome::Recorded;
use crate::wire::control::RecordRule;

/// When a step is sealed without the members that have given nothing. If members differ, the most
/// impatient one decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordOptions {
    /// At the latest this long after this member's entry; at most 49 days. `None`: after the
    /// master's `post_timeout`.
    pub deadline: Option<Duration>,
    /// Once so many members have given something. 0, the default, waits for all.
    pub quorum: u32,
    /// How long after that the others may still come. Default 0.
    pub grace: Duration,
    /// Steps by which this entry may be late and still be in a record, with its age; at most 16.
    /// 0, the default: a late entry is dropped.
    pub age_max: u32,
}

impl RecordOptions {
    fn rule(&self) -> Result<RecordRule> {
        let millis = |what: &str, time: Duration| {
            u32::try_from(time.as_millis())
                .map_err(|_| Error::invalid(format!("the {what} of a record is over 49 days")))
        };
        let deadline = self.deadline.map(|time| millis("deadline", time));
        Ok(RecordRule {
            deadline_ms: deadline.transpose()?,
            quorum: self.quorum,
            grace_ms: millis("grace", self.grace)?,
            age_max: self.age_max,
        })
    }
}

impl Communicator {
    /// Gives an entry of at most 4 KiB for the next step of a stream, and blocks until its record
    /// is sealed: what members gave, in one order that is the same for all of them, whatever dies.
    /// An empty entry abstains.
    ///
    /// Every member must make this call for every step. It returns the records of a stream one by
    /// one: if this member is late, the record that was sealed without it. No view change aborts a
    /// step; who is lost gives nothing. A newcomer begins where the others are when it is admitted.
    ///
    /// With a journal the master seals a record in one round trip, else in two.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], [`Error::InvalidUsage`] if the stream has a call in progress, or
    /// the error that ended the session: then the entry may be in a record, or not.
    pub fn all_gather_records(
        &self,
        stream: StreamId,
        entry: &[u8],
        options: &RecordOptions,
    ) -> Result<Recorded> {
        self.all_gather_records_async(stream, entry, options)?
            .wait()
    }

    /// Starts [`Communicator::all_gather_records`].
    ///
    /// # Errors
    /// As there.
    pub fn all_gather_records_async(
        &self,
        stream: StreamId,
        entry: &[u8],
        options: &RecordOptions,
    ) -> Result<RecordHandle> {
        let rule = options.rule()?;
        let call = self.session().enter(stream, entry.to_vec(), rule)?;
        Ok(RecordHandle { call })
    }
}

/// A step of a stream in progress; also a future. If it is dropped, the step goes on, and the next
/// call of the stream is an error until it has ended.
#[derive(Debug)]
pub struct RecordHandle {
    call: RecordCall,
}

impl RecordHandle {
    /// Blocks until the record is sealed. Later calls return the same.
    ///
    /// # Errors
    /// As [`Communicator::all_gather_records`].
    pub fn wait(&self) -> Result<Recorded> {
        self.call.check_process()?;
        recorded(self.call.completion().wait())
    }

    /// Blocks at most `timeout`. The step goes on either way.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it is not sealed by then, else as [`RecordHandle::wait`].
    pub fn wait_for(&self, timeout: Duration) -> Result<Recorded> {
        self.call.check_process()?;
        match self.call.completion().wait_for(timeout) {
            true => self.wait(),
            false => Err(Error::Timeout),
        }
    }

    /// Whether it has ended. Does not block.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.call.completion().is_finished()
    }
}

impl Future for RecordHandle {
    type Output = Result<Recorded>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let end = self.call.completion().poll(context.waker());
        end.map(recorded)
    }
}

fn recorded(end: Result<Finished>) -> Result<Recorded> {
    match end? {
        Finished::Recorded(recorded) => Ok(*recorded),
        Finished::Operation(_) | Finished::SafePoint(_) | Finished::Left => {
            unreachable!("a step ends as one")
        }
    }
}
