//! Where a text that the parser has refused stops being JSON, for the message to the client.
//!
//! The grammar of RFC 8259 byte by byte, without values. It never decides what is accepted, and runs for
//! refused bodies only.

use super::{DEPTH_MAX, ReportError, is_space};

/// The first fault of `text`; `Ok` if the grammar finds none.
pub(super) fn first_fault(text: &[u8]) -> Result<(), ReportError> {
    let utf8_len = match str::from_utf8(text) {
        Ok(_) => text.len(),
        Err(error) => error.valid_up_to(),
    };
    let mut scan = Scan {
        text: &text[..utf8_len],
        at: 0,
    };
    match scan.document() {
        // What is no UTF-8 cannot follow either, and is the better thing to say.
        Ok(()) | Err(ReportError::NotJson { .. })
            if scan.at == utf8_len && utf8_len < text.len() =>
        {
            Err(ReportError::NotUtf8 { offset: utf8_len })
        }
        found => found,
    }
}

/// A text, and how far it has been passed over.
struct Scan<'t> {
    text: &'t [u8],
    /// `0 <= at <= text.len()`; all before it can begin a JSON text.
    at: usize,
}

impl Scan<'_> {
    fn document(&mut self) -> Result<(), ReportError> {
        self.value(0)?;
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault()),
        }
    }

    /// Passes over a value inside of `depth` others; calls itself at most [`DEPTH_MAX`] deep.
    fn value(&mut self, depth: usize) -> Result<(), ReportError> {
        self.space();
        match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH_MAX => Err(ReportError::TooDeep),
            Some(b'{') => self.items(b'}', |scan| {
                scan.space();
                scan.string()?;
                scan.space();
                scan.literal(b":")?;
                scan.value(depth + 1)
            }),
            Some(b'[') => self.items(b']', |scan| scan.value(depth + 1)),
            Some(b'"') => self.string(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => self.number(),
        }
    }

    /// Passes over an opening byte, items with commas between them, and `close`.
    fn items(
        &mut self,
        close: u8,
        item: impl Fn(&mut Self) -> Result<(), ReportError>,
    ) -> Result<(), ReportError> {
        self.at += 1;
        self.space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => break self.literal(&[close]),
            }
        }
    }

    fn string(&mut self) -> Result<(), ReportError> {
        self.literal(b"\"")?;
        loop {
            match self.peek() {
                None | Some(0..0x20) => return Err(self.fault()),
                Some(b'"') => return self.literal(b"\""),
                Some(b'\\') => self.escape()?,
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), ReportError> {
        self.literal(b"\\")?;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let is_whole = match self.code_unit()? {
                    0xd800..0xdc00 => {
                        self.literal(b"\\")?;
                        (0xdc00..0xe000).contains(&self.code_unit()?)
                    }
                    unit => !(0xdc00..0xe000).contains(&unit),
                };
                if !is_whole {
                    self.at -= 1;
                    return Err(self.fault());
                }
            }
            _ => return Err(self.fault()),
        }
        Ok(())
    }

    /// Passes over `u` and four hexadecimal digits and returns their value.
    fn code_unit(&mut self) -> Result<u32, ReportError> {
        self.literal(b"u")?;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit << 4 | digit.ok_or(self.fault())?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), ReportError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ReportError> {
        let rest = &self.text[self.at..];
        match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            0 => Err(self.fault()),
            count => {
                self.at += count;
                Ok(())
            }
        }
    }

    fn literal(&mut self, bytes: &[u8]) -> Result<(), ReportError> {
        for &byte in bytes {
            if self.peek() != Some(byte) {
                return Err(self.fault());
            }
            self.at += 1;
        }
        Ok(())
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| is_space(&byte)) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn fault(&self) -> ReportError {
        ReportError::NotJson { offset: self.at }
    }
}
