//! Names, notes and reports of tests.

use super::*;

pub(in crate::master) fn fingerprint(count: u64) -> Fingerprint {
    Fingerprint::new(Called::AllReduce {
        reduce_op: ReduceOp::Sum,
        elements: Elements::of([(Dtype::F32, count)]),
    })
}

pub(in crate::master) fn member(peer: u64) -> crate::wire::control::Member {
    crate::wire::control::Member {
        peer: PeerId(peer),
        number: crate::ids::MemberNumber(peer),
        unit: UnitId(peer),
        addresses: Vec::new(),
        key: LinkKey(u128::from(peer)),
        name: format!("node{peer}"),
    }
}

pub(in crate::master) fn op(n: u64, birth: Vid) -> OpName {
    OpName {
        tag: Tag(7),
        n: OpNumber(n),
        birth,
    }
}

pub(in crate::master) fn note(op: OpName) -> OpNote {
    OpNote {
        op,
        fingerprint: fingerprint(10),
    }
}

pub(super) fn posted(op: OpName) -> PeerToMaster {
    PeerToMaster::Posted(vec![note(op)])
}

pub(super) fn done(op: OpName) -> PeerToMaster {
    PeerToMaster::Done(vec![note(op)])
}

/// The report of a peer without any tag.
pub(super) fn report(vid: Vid) -> Report {
    Report {
        vid,
        released: true,
        ..Report::default()
    }
}

/// The report of a peer with one open operation.
pub(super) fn report_open(vid: Vid, op: OpName, held: bool) -> Report {
    let mut report = report(vid);
    report.tags.push(TagReport {
        tag: op.tag,
        floor: op.n,
        last_committed: op.n.0.checked_sub(1).map(OpNumber),
        sealed: Sealed::Nothing,
        aborted: None,
        open: Some(OpenReport {
            n: op.n,
            birth: op.birth,
            fingerprint: fingerprint(10),
            held,
            cancel: None,
            elected: None,
        }),
        next: None,
    });
    report
}

pub(in crate::master) fn vid(term: u32, epoch: u32) -> Vid {
    Vid {
        term: crate::ids::Term(term),
        epoch: crate::ids::Epoch(epoch),
    }
}
