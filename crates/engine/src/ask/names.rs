//! Container names: what is allowed, and random ones for those who do not care.

use crate::error::{Error, Result};

/// # Errors
/// `InvalidParameter` in Docker's words.
pub(crate) fn check(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

const MOODS: [&str; 32] = [
    "agile", "bold", "brave", "bright", "calm", "clever", "cosmic", "crisp", "daring", "eager", "epic",
    "fair", "fast", "fond", "gentle", "happy", "jolly", "keen", "kind", "lucid", "lucky", "merry", "nifty",
    "proud", "quick", "quiet", "sharp", "snug", "sunny", "vivid", "witty", "zen",
];
const PEOPLE: [&str; 32] = [
    "bell", "bohr", "cerf", "curie", "darwin", "dijkstra", "euclid", "euler", "fermat", "franklin", "galois",
    "gauss", "germain", "goodall", "hamilton", "hopper", "hypatia", "kepler", "knuth", "lamport", "lovelace",
    "maxwell", "meitner", "newton", "noether", "pascal", "perlman", "ritchie", "shannon", "tesla", "turing",
    "wu",
];

/// Returns a random name, such as `brave_turing`; after the first attempts with a digit behind it.
#[must_use]
pub fn random(attempt: u32) -> String {
    let mut bytes = [0u8; 3];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    let name = format!("{}_{}", MOODS[usize::from(bytes[0] % 32)], PEOPLE[usize::from(bytes[1] % 32)]);
    match attempt {
        0..=2 => name,
        3..=8 => format!("{name}{}", bytes[2] % 10),
        _ => format!("{name}_{}", &crate::random_id()[..8]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_valid_and_bad_ones_are_refused() {
        for attempt in 0..20 {
            check(&random(attempt)).unwrap();
        }
        for bad in ["", "a", "-ab", "a b", "a/b", "ümlaut"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
