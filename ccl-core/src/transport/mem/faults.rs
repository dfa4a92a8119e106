//! How often something goes wrong between the links in memory.

/// How often something goes wrong: once in this many frames, never if 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// A lane breaks while a frame is on its way.
    pub(crate) breaks: u64,
    /// A payload arrives damaged.
    pub(crate) damage: u64,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        breaks: 0,
        damage: 0,
    };
}
