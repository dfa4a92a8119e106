//! The operators, each as three small steps: load an element, combine, write the result.

use super::number::{Number, Raw};
use std::marker::PhantomData;

/// One operator on one element type.
pub(super) trait Rule {
    /// The element's bits.
    type Raw: Raw;
    /// The accumulator for contributions added one by one.
    type State: Copy + Default;

    fn lift(&self, raw: Self::Raw) -> Self::State;
    fn combine(&self, left: Self::State, right: Self::State) -> Self::State;
    fn lower(&self, state: Self::State) -> Self::Raw;
}

macro_rules! rule {
    ($(#[$doc:meta])* $name:ident, $state:ident, $lift:ident, $combine:expr, $lower:ident) => {
        $(#[$doc])*
        pub(super) struct $name<N>(pub PhantomData<N>);

        impl<N: Number> Rule for $name<N> {
            type Raw = N::Raw;
            type State = N::$state;

            #[inline(always)]
            fn lift(&self, raw: N::Raw) -> N::$state {
                N::$lift(raw)
            }

            #[inline(always)]
            fn combine(&self, left: N::$state, right: N::$state) -> N::$state {
                $combine(left, right)
            }

            #[inline(always)]
            fn lower(&self, state: N::$state) -> N::Raw {
                N::$lower(state)
            }
        }
    };
}

rule!(
    /// Adds.
    Sum, Accumulator, lift, N::add, lower
);
rule!(
    /// Multiplies.
    Product, Accumulator, lift, N::multiply, lower
);
rule!(
    /// Keeps the least.
    Minimum, Key, key_low, Ord::min, from_key
);
rule!(
    /// Keeps the greatest.
    Maximum, Key, key_high, Ord::max, from_key
);

/// Adds in a type that holds the sum, and divides once.
pub(super) struct Average<N> {
    pub divisor: u32,
    pub number: PhantomData<N>,
}

impl<N: Number> Rule for Average<N> {
    type Raw = N::Raw;
    type State = N::Total;

    #[inline(always)]
    fn lift(&self, raw: N::Raw) -> N::Total {
        N::count(raw)
    }

    #[inline(always)]
    fn combine(&self, left: N::Total, right: N::Total) -> N::Total {
        N::total(left, right)
    }

    #[inline(always)]
    fn lower(&self, state: N::Total) -> N::Raw {
        N::mean(state, self.divisor)
    }
}
