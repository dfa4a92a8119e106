//! What comes before what, where the machine does not say it.

use super::*;
use crate::driver::peer::session::tests::{barrier, session};

/// Goal: between the abort of a sync and its next attempt nothing that callers say comes first.
///
/// 1. A sync is about to be posted again.
/// 2. A cancel of it and a safe point are held back.
/// 3. It is posted; then they are taken in, in their order.
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
