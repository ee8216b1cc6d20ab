//! Lengths and counts, read as strictly as Redis reads them.

use super::Doubt;

/// Digits of a number that [`quick`] reads: it cannot overflow 32 bits.
const QUICK_DIGITS: usize = 9;

/// A number up to its CR LF, resumable at any byte. One sign, a minus, and no leading zero, as in Redis' `string2ll`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    value: u64,
    digits: u8,
    negative: bool,
    ended: bool,
}

impl Number {
    pub(super) const NEW: Self = Self {
        value: 0,
        digits: 0,
        negative: false,
        ended: false,
    };

    /// Takes the next byte; gives the number when it was the line feed.
    pub(super) fn take(&mut self, byte: u8) -> Result<Option<i64>, Doubt> {
        if self.ended {
            // `value` fits: it was checked below.
            let value = i64::try_from(self.value).map_err(|_| Doubt::Number)?;
            let signed = if self.negative { -value } else { value };
            return if byte == b'\n' {
                Ok(Some(signed))
            } else {
                Err(Doubt::Number)
            };
        }
        match byte {
            b'-' if self.digits == 0 && !self.negative => self.negative = true,
            b'0'..=b'9' => {
                let leading_zero = self.digits > 0 && self.value == 0;
                let minus_zero = self.negative && self.digits == 0 && byte == b'0';
                self.value = self
                    .value
                    .checked_mul(10)
                    .and_then(|value| value.checked_add(u64::from(byte - b'0')))
                    .filter(|value| *value <= i64::MAX as u64 && !leading_zero && !minus_zero)
                    .ok_or(Doubt::Number)?;
                // At most 19 digits fit in 63 bits.
                self.digits += 1;
            }
            b'\r' if self.digits > 0 => self.ended = true,
            b'?' if self.digits == 0 && !self.negative => return Err(Doubt::Streamed),
            _ => return Err(Doubt::Number),
        }
        Ok(None)
    }
}

/// The number these bytes begin with and how long it is with its CR LF, if all of it is here and in the common form; else
/// [`Number`] finds out what it is.
#[inline]
pub(super) fn quick(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().enumerate().take(QUICK_DIGITS + 1) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let canonical = i == 1 || (i > 1 && bytes[0] != b'0');
            let ended = byte == b'\r' && bytes.get(i + 1) == Some(&b'\n');
            return (canonical && ended).then_some((value, i + 2));
        }
        if i == QUICK_DIGITS {
            break;
        }
        value = value * 10 + u32::from(digit);
    }
    None
}
