//! The keys at which somebody in front of a terminal leaves it and what runs there goes on. The server looks for them for
//! every client, and a client that wants to know whether it left looks too.
//!
//! Source: Docker API `ContainerAttach` and `ExecConfig`, `detachKeys`; moby `pkg/term` `ToBytes`, `escapeProxy`.

/// ctrl-p, ctrl-q.
const DEFAULT: [u8; 2] = [16, 17];

/// What was said to be keys is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Invalid detach keys ({0}) provided; hint: single characters and ctrl-a to ctrl-z, ctrl-@, ctrl-[, ctrl-\\, ctrl-], \
     ctrl-^, ctrl-_, DEL, with commas between them"
)]
pub struct NoKeys(String);

/// Finds a sequence of keys in what is typed.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them were typed just now; they are held back.
    typed: usize,
}

impl DetachKeys {
    /// Reads Docker's notation: `ctrl-p,ctrl-q`, `ctrl-@,x`, `DEL`; nothing stands for ctrl-p, ctrl-q.
    ///
    /// # Errors
    /// Something in it is no key.
    pub fn parse(text: &str) -> Result<Self, NoKeys> {
        if text.is_empty() {
            return Ok(Self { keys: DEFAULT.to_vec(), typed: 0 });
        }
        let keys = text.split(',').map(key).collect::<Option<Vec<_>>>();
        let keys = keys.ok_or_else(|| NoKeys(text.to_owned()))?;
        Ok(Self { keys, typed: 0 })
    }

    /// Returns what is to be passed on of some typed bytes, and true if the whole sequence was typed: what comes after
    /// it is nobody's. The beginning of a sequence is held back until it is known not to be one.
    pub fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len() + self.typed);
        for &byte in bytes {
            while self.typed > 0 && byte != self.keys[self.typed] {
                // Not this one, but a part of what is held back may begin another.
                passed.push(self.keys[0]);
                let held = self.typed;
                self.typed =
                    (0..held).rev().find(|n| self.keys[..*n] == self.keys[held - n..held]).unwrap_or(0);
                passed.extend_from_slice(&self.keys[1..held - self.typed]);
            }
            if byte != self.keys[self.typed] {
                passed.push(byte);
                continue;
            }
            self.typed += 1;
            if self.typed == self.keys.len() {
                self.typed = 0;
                return (passed, true);
            }
        }
        (passed, false)
    }

    /// Returns what was held back, when nothing more is typed.
    pub fn rest(&mut self) -> &[u8] {
        &self.keys[..std::mem::take(&mut self.typed)]
    }
}

fn key(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [key] => Some(*key),
        b"DEL" => Some(127),
        [b'c', b't', b'r', b'l', b'-', key] => {
            matches!(key, b'@' | b'a'..=b'z' | b'['..=b'_').then_some(key & 0x1f)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(keys: &str, typed: &[&[u8]], passed: &[u8], detached: bool) {
        let mut keys = DetachKeys::parse(keys).unwrap();
        let (mut all, mut last) = (Vec::new(), false);
        for bytes in typed {
            assert!(!last, "nothing is typed after it");
            let (some, end) = keys.pass(bytes);
            all.extend(some);
            last = end;
        }
        all.extend_from_slice(keys.rest());
        assert_eq!((all.as_slice(), last), (passed, detached));
    }

    #[test]
    fn the_sequence_detaches_however_it_comes_and_all_else_passes() {
        check("", &[b"ls\n\x10\x11"], b"ls\n", true);
        check("", &[b"ls\n", b"\x10", b"\x11"], b"ls\n", true);
        check("", &[b"\x10", b"x\x11"], b"\x10x\x11", false);
        check("", &[b"\x10\x10", b"\x11 not seen"], b"\x10", true);
        check("", &[b"a\x10"], b"a\x10", false);
        check("ctrl-a", &[b"\x10\x11\x01"], b"\x10\x11", true);
        check("a,a,b", &[b"aaab"], b"a", true);
        check("a,b,a,c", &[b"ababac"], b"ab", true);
        check("a,b,a,c", &[b"abad"], b"abad", false);
    }

    #[test]
    fn keys_are_written_as_docker_writes_them() {
        let keys = |text| DetachKeys::parse(text).map(|keys| keys.keys);
        assert_eq!(keys("ctrl-p,ctrl-q"), keys(""));
        assert_eq!(keys("ctrl-@,ctrl-_,x,DEL,ctrl-["), Ok(vec![0, 31, b'x', 127, 27]));
        for bad in ["ctrl-", "ctrl-A", "ctrl-aa", "shift-a", "ctrl-1", "a,,b"] {
            assert!(keys(bad).unwrap_err().to_string().contains("Invalid detach keys"), "{bad}");
        }
    }
}
