//! The answer to a body with many reports: how many were taken, and which were not.
//!
//! ```text
//! {"status":"ok","accepted":2,"rejected":[{"index":1,"code":"not_json","message":"…"}]}
//! ```
//!
//! Owns what the answer says. Leaves to others: what is wrong with an item (`report`), its code
//! (`reject`), when the accepted ones are committed (`conn`).
//!
//! Indices count items from 0; blank lines are no items. Their count is bounded where the body is cut
//! ([`crate::report::batch::ITEMS_MAX`]), some 150 bytes of answer each.

use std::fmt;

use serde_json::json;

/// What an item adds to the answer, its message aside.
const ITEM_BYTES: usize = r#",{"index":16383,"code":"body_too_large","message":""}"#.len();

/// What became of the items of one body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    accepted: usize,
    rejected: Vec<Rejected>,
    /// Of all messages.
    message_bytes: usize,
}

/// An item that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rejected {
    index: usize,
    code: &'static str,
    message: String,
}

impl Verdicts {
    /// Counts an item that has been taken.
    pub fn accept(&mut self) {
        self.accepted += 1;
    }

    /// Lists an item that has not.
    pub fn reject(&mut self, index: usize, code: &'static str, message: &dyn fmt::Display) {
        let message = message.to_string();
        self.message_bytes += message.len();
        self.rejected.push(Rejected {
            index,
            code,
            message,
        });
    }

    /// Memory that this takes, with the answer made of it, while that is being copied to be sent.
    pub fn bytes(&self) -> u64 {
        let list = 2 * size_of::<Rejected>() + 2 * ITEM_BYTES;
        (self.rejected.len() * list + 3 * self.message_bytes) as u64
    }

    /// How many items have been taken.
    pub fn accepted(&self) -> usize {
        self.accepted
    }

    /// How many have not.
    pub fn rejected(&self) -> usize {
        self.rejected.len()
    }

    /// The codes of those, in their order.
    pub fn codes(&self) -> impl Iterator<Item = &'static str> {
        self.rejected.iter().map(|rejected| rejected.code)
    }

    /// The answer's body once those taken have reached what an answer waits for: one line of JSON.
    pub fn body(&self) -> Vec<u8> {
        self.render("{\"status\":\"ok\"".to_owned())
    }

    /// The same if the whole is refused with this code, as with nothing in it that could be taken.
    pub fn refusal_body(&self, code: &str, message: &dyn fmt::Display) -> Vec<u8> {
        let message = json!(message.to_string());
        self.render(format!(
            "{{\"status\":\"error\",\"code\":\"{code}\",\"message\":{message}"
        ))
    }

    fn render(&self, begin: String) -> Vec<u8> {
        let mut body = begin + &format!(",\"accepted\":{},\"rejected\":[", self.accepted);
        for (count, rejected) in self.rejected.iter().enumerate() {
            let Rejected {
                index,
                code,
                message,
            } = rejected;
            let separator = if count > 0 { "," } else { "" };
            let message = json!(message);
            body += &format!(
                "{separator}{{\"index\":{index},\"code\":\"{code}\",\"message\":{message}}}"
            );
        }
        body.push(']');
        body += "}\n";
        body.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[track_caller]
    fn check(verdicts: &Verdicts, expected: &str) {
        assert_eq!(String::from_utf8(verdicts.body()).unwrap(), expected);
        assert!(serde_json::from_slice::<Value>(&verdicts.body()).is_ok());
    }

    #[test]
    fn answers() {
        let mut verdicts = Verdicts::default();
        check(
            &verdicts,
            "{\"status\":\"ok\",\"accepted\":0,\"rejected\":[]}\n",
        );
        verdicts.accept();
        verdicts.accept();
        check(
            &verdicts,
            "{\"status\":\"ok\",\"accepted\":2,\"rejected\":[]}\n",
        );
        verdicts.reject(1, "not_json", &"body is not valid JSON at byte 7");
        check(
            &verdicts,
            "{\"status\":\"ok\",\"accepted\":2,\"rejected\":[\
             {\"index\":1,\"code\":\"not_json\",\"message\":\"body is not valid JSON at byte 7\"}]}\n",
        );
        verdicts.reject(3, "not_a_report", &"a \"quote\",\n\\ \u{1}");
        check(
            &verdicts,
            "{\"status\":\"ok\",\"accepted\":2,\"rejected\":[\
             {\"index\":1,\"code\":\"not_json\",\"message\":\"body is not valid JSON at byte 7\"},\
             {\"index\":3,\"code\":\"not_a_report\",\
             \"message\":\"a \\\"quote\\\",\\n\\\\ \\u0001\"}]}\n",
        );
        assert_eq!((verdicts.accepted(), verdicts.rejected()), (2, 2));
    }

    #[test]
    fn refusals() {
        let mut verdicts = Verdicts::default();
        verdicts.reject(0, "not_json", &"body is empty");
        let body = verdicts.refusal_body("nothing_accepted", &"none of 1 \"reports\" is good");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "{\"status\":\"error\",\"code\":\"nothing_accepted\",\
             \"message\":\"none of 1 \\\"reports\\\" is good\",\"accepted\":0,\"rejected\":[\
             {\"index\":0,\"code\":\"not_json\",\"message\":\"body is empty\"}]}\n"
        );
    }
}
