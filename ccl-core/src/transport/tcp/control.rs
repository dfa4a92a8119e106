//! Which congestion control the lanes of a long link use, unless the user has chosen one.
//!
//! Pure. CUBIC has its whole window at once, and the link's limit keeps it from filling queues; but
//! it takes every lost segment for a queue that has overflowed, and after a silence it begins with
//! a small window. BBR minds neither losses nor silences, but it spreads a burst over a round trip,
//! as slowly as the last small ones have gone. So a lane sends with CUBIC where nothing gets lost
//! without a queue, and spends silences under BBR, which begins anew with the window that the lane
//! has.

use super::spread::Shown;

/// A congestion control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Cubic,
    Bbr,
}

/// The control of one link.
#[derive(Debug, Default)]
pub(super) struct Controls {
    /// Rises with windows in which segments got lost without a queue, falls with those without.
    losses: u32,
}

impl Control {
    /// The system's name for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

impl Controls {
    /// A busy window is over.
    pub(super) fn judge(&mut self, shown: Shown) {
        self.losses = match shown.has_losses {
            // Full queues overflow: that is what the limit is for.
            _ if shown.is_queued => self.losses,
            true => (self.losses + LOSS_WEIGHT).min(LOSSES_MOST),
            false => self.losses.saturating_sub(1),
        };
    }

    /// For lanes that send.
    pub(super) fn busy(&self) -> Control {
        match self.losses >= LOSSES_MIN {
            true => Control::Bbr,
            false => Control::Cubic,
        }
    }

    /// For lanes that have nothing to send.
    pub(super) fn silent(&self) -> Control {
        Control::Bbr
    }
}

/// What a window with losses counts, as a multiple of one without.
const LOSS_WEIGHT: u32 = 8;
/// From where on a link counts as lossy: two windows with losses soon after one another. One may
/// follow when a queue has overflowed.
const LOSSES_MIN: u32 = 10;
/// How much is remembered.
const LOSSES_MOST: u32 = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(windows: impl IntoIterator<Item = (bool, bool)>) -> Control {
        let mut controls = Controls::default();
        for (has_losses, is_queued) in windows {
            controls.judge(Shown {
                has_losses,
                is_queued,
                ..Shown::default()
            });
        }
        controls.busy()
    }

    #[test]
    fn losses_without_a_queue_ask_for_bbr() {
        assert_eq!(after([]), Control::Cubic);
        assert_eq!(after([(true, false), (true, false)]), Control::Bbr);
        assert_eq!(
            after([(true, false), (false, false), (true, false)]),
            Control::Bbr
        );
    }

    #[test]
    fn a_queue_that_overflows_does_not() {
        assert_eq!(after([(true, true); 50]), Control::Cubic);
        assert_eq!(after([(true, true), (true, false)]), Control::Cubic);
    }

    #[test]
    fn a_path_that_lost_something_long_ago_counts_as_clean() {
        let lossy = [(true, false); 10];
        let clean = [(false, false); 39];
        assert_eq!(after(lossy.into_iter().chain(clean)), Control::Cubic);
        assert_eq!(
            after(lossy.into_iter().chain([(false, false); 20])),
            Control::Bbr
        );
    }
}
