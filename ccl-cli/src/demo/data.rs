//! The handwritten digits that the demonstration trains on; `data/README.md` says whose they are.

use crate::failure::{Failure, Result};

/// Grey values of one image.
pub const PIXELS: usize = 64;
/// Kinds of digits.
pub const CLASSES: usize = 10;

/// One image.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Grey values from 0 to 1, row by row.
    pub pixels: [f32; PIXELS],
    /// The digit it shows.
    pub digit: u8,
}

/// Images to learn from and others to be tested with.
#[derive(Clone, Debug)]
pub struct Digits {
    /// Four of every five.
    pub train: Vec<Image>,
    /// Every fifth.
    pub test: Vec<Image>,
}

impl Digits {
    /// Reads the images that are part of this program.
    pub fn load() -> Result<Self> {
        let mut digits = Self {
            train: Vec::new(),
            test: Vec::new(),
        };
        for (index, line) in CSV.lines().enumerate() {
            let image = parse(line).ok_or_else(|| {
                Failure::new(format!("line {} of digits.csv is damaged", index + 1))
            })?;
            let is_fifth = index % 5 == 4;
            if is_fifth {
                digits.test.push(image)
            } else {
                digits.train.push(image)
            }
        }
        Ok(digits)
    }
}

fn parse(line: &str) -> Option<Image> {
    let mut values = line.split(',');
    let mut pixels = [0.0; PIXELS];
    for pixel in &mut pixels {
        let grey: u8 = values.next()?.parse().ok()?;
        *pixel = f32::from(grey) / GREY_MAX;
    }
    let digit: u8 = values.next()?.parse().ok()?;
    let is_whole = values.next().is_none() && usize::from(digit) < CLASSES;
    is_whole.then_some(Image { pixels, digit })
}

const CSV: &str = include_str!("../../data/digits.csv");
const GREY_MAX: f32 = 16.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fifth_line_is_for_testing() {
        let digits = Digits::load().unwrap();
        assert_eq!((digits.train.len(), digits.test.len()), (1438, 359));
        assert_eq!(digits.train[0].digit, 0);
        assert_eq!(digits.test[0].digit, 4, "the fifth line");
    }

    #[test]
    fn every_value_is_in_its_range_and_every_digit_is_there() {
        let digits = Digits::load().unwrap();
        let mut seen = [0; CLASSES];
        for image in digits.train.iter().chain(&digits.test) {
            assert!(image.pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
            seen[usize::from(image.digit)] += 1;
        }
        assert!(seen.iter().all(|&count| count > 150), "{seen:?}");
    }

    #[test]
    fn damaged_lines_are_noticed() {
        let good = CSV.lines().next().unwrap();
        assert!(parse(good).is_some());
        assert!(parse(&good[2..]).is_none(), "a value is missing");
        assert!(parse(&format!("{good},1")).is_none(), "a value too many");
        assert!(parse(&good.replace('5', "x")).is_none());
    }
}
