//! The order of inputs where the machine does not determine it.

use super::*;
use crate::driver::peer::session::tests::{barrier, session, welcome};
use crate::ids::PeerId;

/// Goal: no request of a caller is processed between the abort of a sync and its next attempt.
///
/// 1. A sync is about to be posted again.
/// 2. A cancel of that sync, and a safe point, are held back.
/// 3. The sync is posted; then the two are processed in order.
#[test]
fn what_callers_say_while_a_sync_is_renewed_comes_after_it() {
    let (session, _master) = session();
    let call = Arc::new(Call {
        id: session.new_call(),
        session: Arc::clone(&session),
        completion: Completion::new(),
        op: Mutex::default(),
        last: Mutex::default(),
    });
    session.core.lock().renewals = 1;
    session.cancel(call.id);
    let point = session.safe_point().unwrap();
    assert_eq!(session.core.lock().held_back.len(), 2);
    assert!(!point.completion().is_finished());
    let collective = Collective {
        operation: barrier(),
        call: Arc::clone(&call),
        attempts: 2,
        deadline: None,
    };
    let duty = Duty::new(call.completion_arc());
    session.take(Item::Repeat(Box::new(Repeat { duty, collective })));
    // It was not admitted yet, and reports that it is ready.
    let refused = point.completion().wait();
    assert!(
        matches!(refused, Err(Error::InvalidUsage(_))),
        "{refused:?}"
    );
    let core = session.core.lock();
    assert!(core.held_back.is_empty() && core.renewals == 0);
    assert!(core.calls.contains_key(&call.id), "it waits to be admitted");
    drop(core);
    session.close();
    assert!(call.completion().is_finished());
}

/// Goal: a warning is logged if the two timeouts prevent the eviction of a member that hangs.
#[test]
fn a_deadline_that_comes_before_the_eviction_of_who_does_not_call_is_warned_of() {
    for (post_seconds, is_warned) in [(599, false), (600, true)] {
        let (session, _master) = session();
        let mut message = welcome(PeerId(7));
        if let MasterToPeer::Welcome { timers, .. } = &mut message {
            timers.post_timeout = Some(Duration::from_secs(post_seconds));
        }
        let mut core = session.core.lock();
        let generation = core.generation();
        let said = Item::Control(generation, ControlItem::Said(message));
        core.handle(session.now(), said);
        let is_warning = |work: Deferred| matches!(work, Deferred::WarnOfTimeouts { .. });
        assert_eq!(core.decided().any(is_warning), is_warned);
        drop(core);
        session.close();
    }
}
