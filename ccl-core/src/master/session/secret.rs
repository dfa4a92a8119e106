//! Session secrets and run ids: 128 bits that cannot be guessed without the entropy.
//!
//! Each half is SipHash-2-4, a pseudo-random function, of (term, counter, purpose) under its own
//! half of the 256-bit key. The counter never repeats within a term, nor the term within a run, so
//! no secret is issued twice, even if two masters were started with the same entropy.

use crate::ids::Term;

/// Draws secrets from 256 bits of entropy.
#[derive(Debug)]
pub struct Secrets {
    key: [u64; 4],
    drawn: u64,
}

impl Secrets {
    pub fn new(entropy: [u64; 4]) -> Self {
        Self {
            key: entropy,
            drawn: 0,
        }
    }

    /// The next secret of this term.
    pub fn draw(&mut self, term: Term) -> u128 {
        let words = [u64::from(term.0), self.drawn];
        self.drawn += 1;
        let high = siphash([self.key[0], self.key[1]], words);
        let low = siphash([self.key[2], self.key[3]], words);
        (u128::from(high) << 64) | u128::from(low)
    }
}

/// SipHash-2-4 of two words (Aumasson and Bernstein, 2012).
fn siphash(key: [u64; 2], words: [u64; 2]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let length = (words.len() as u64 * 8) << 56;
    for word in [words[0], words[1], length] {
        state[3] ^= word;
        round(&mut state);
        round(&mut state);
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference vector of 16 bytes 0, 1, … 15 under the key 0, 1, … 15.
    #[test]
    fn siphash_matches_its_reference() {
        let bytes: Vec<u8> = (0..16).collect();
        let word =
            |range: std::ops::Range<usize>| u64::from_le_bytes(bytes[range].try_into().unwrap());
        let words = [word(0..8), word(8..16)];
        assert_eq!(siphash(words, words), 0x3f2a_cc7f_57c2_9bdb);
    }

    #[test]
    fn secrets_differ_between_draws_terms_and_halves() {
        let mut first = Secrets::new([1, 2, 3, 4]);
        let mut second = Secrets::new([1, 2, 3, 4]);
        let drawn = [
            first.draw(Term(1)),
            first.draw(Term(1)),
            second.draw(Term(2)),
        ];
        assert_ne!(drawn[0], drawn[1]);
        assert_ne!(drawn[0], drawn[2]);
        assert_ne!((drawn[0] >> 64) as u64, drawn[0] as u64);
    }
}
