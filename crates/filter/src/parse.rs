//! The grammar: text in, a tree out, in one pass.
//!
//! ```text
//!  or      = and { ws "or" ws and }            match  = selector ("==" | "!=") value
//!  and     = not { ws "and" ws not }                  | selector ws ["not" ws] ("contains" | "matches") ws value
//!  not     = "not" ws not | "(" or ")" | match        | selector ws "is" ws ["not" ws] "empty"
//!  value   = selector | number | "text" | `text`      | value ws ["not" ws] "in" ws selector
//!  selector = word { "." word | "[" "text" "]" }
//! ```

use crate::error::Problem;
use crate::quote::unquote;
use crate::{DEPTH_MAX, EXPRESSION_BYTES_MAX, MATCHES_MAX};

/// A tree whose depth is bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    Any(Vec<Expression>),
    All(Vec<Expression>),
    Not(Box<Expression>),
    Match(Match),
}

/// `selector operator value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) selector: Vec<String>,
    pub(crate) operator: Operator,
    pub(crate) negated: bool,
    pub(crate) value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    In,
    IsEmpty,
    Matches,
}

impl Match {
    /// The operator's name in errors.
    pub(crate) fn operator_name(&self) -> &'static str {
        match (self.operator, self.negated) {
            (Operator::Equal, false) => "Equal",
            (Operator::Equal, true) => "Not Equal",
            (Operator::In, false) => "In",
            (Operator::In, true) => "Not In",
            (Operator::IsEmpty, false) => "Is Empty",
            (Operator::IsEmpty, true) => "Is Not Empty",
            (Operator::Matches, false) => "Matches",
            (Operator::Matches, true) => "Not Matches",
        }
    }
}

/// Reads a whole expression.
pub(crate) fn parse(text: &str) -> Result<Expression, Problem> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(Problem::TooLong(text.len()));
    }
    let mut parser = Parser { text, at: 0, depth: 0, matches: 0 };
    parser.skip_space();
    let expression = parser.or()?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.expected("\"and\", \"or\" or the end"));
    }
    if parser.matches > MATCHES_MAX {
        return Err(Problem::TooManyMatches(parser.matches));
    }
    Ok(expression)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    matches: usize,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Takes these words with space before each, and after the last if `space_after`; all or nothing.
    fn take_words(&mut self, words: &[&str], space_after: bool) -> bool {
        let start = self.at;
        let mut taken = words.iter().all(|word| {
            let before = self.at;
            self.skip_space();
            self.at > before && self.take(word)
        });
        if taken && space_after {
            let before = self.at;
            self.skip_space();
            taken = self.at > before;
        }
        if !taken {
            self.at = start;
        }
        taken
    }

    fn syntax_at(&self, offset: usize, what: String) -> Problem {
        let before = &self.text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Problem::Syntax { line, column, offset, what }
    }

    fn expected(&self, what: &str) -> Problem {
        let found = match self.rest().split_whitespace().next() {
            None => "the end".to_owned(),
            Some(word) => format!("{:?}", word.chars().take(20).collect::<String>()),
        };
        self.syntax_at(self.at, format!("no match found, expected: {what}; found {found}"))
    }

    fn or(&mut self) -> Result<Expression, Problem> {
        let mut parts = vec![self.and()?];
        while self.take_words(&["or"], true) {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expression::Any))
    }

    fn and(&mut self) -> Result<Expression, Problem> {
        let mut parts = vec![self.not()?];
        while self.take_words(&["and"], true) {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expression::All))
    }

    fn not(&mut self) -> Result<Expression, Problem> {
        let start = self.at;
        if self.take("not") && self.peek().is_some_and(is_space) {
            self.skip_space();
            return match self.deeper(Self::not) {
                Ok(inner) => Ok(Expression::Not(Box::new(inner))),
                // A selector or a value may be called "not" too. One match is tried, so this takes no more than its length.
                Err(error) => {
                    let reached = self.at;
                    self.at = start;
                    self.one_match().map_err(|_| {
                        self.at = reached;
                        error
                    })
                }
            };
        }
        self.at = start;
        if self.take("(") {
            self.skip_space();
            let inner = self.deeper(Self::or)?;
            self.skip_space();
            return if self.take(")") { Ok(inner) } else { Err(self.expected("\")\": unmatched parentheses")) };
        }
        self.one_match()
    }

    fn deeper(&mut self, read: fn(&mut Self) -> Result<Expression, Problem>) -> Result<Expression, Problem> {
        if self.depth == DEPTH_MAX {
            return Err(Problem::TooDeep(self.at));
        }
        self.depth += 1;
        let inner = read(self);
        self.depth -= 1;
        inner
    }

    fn one_match(&mut self) -> Result<Expression, Problem> {
        let start = self.at;
        if let Some(selector) = self.selector()? {
            if let Some((operator, negated)) = self.operator_before_value() {
                let value = self.value()?;
                return Ok(self.finish(selector, operator, negated, value));
            }
            if self.take_words(&["is", "not", "empty"], false) {
                return Ok(self.finish(selector, Operator::IsEmpty, true, String::new()));
            }
            if self.take_words(&["is", "empty"], false) {
                return Ok(self.finish(selector, Operator::IsEmpty, false, String::new()));
            }
            self.at = start;
        }
        let value = self.value()?;
        let negated = if self.take_words(&["not", "in"], true) {
            true
        } else if self.take_words(&["in"], true) {
            false
        } else {
            self.skip_space();
            return Err(
                self.expected("an operator: ==, !=, in, contains, matches, is empty, or one of them with \"not\"")
            );
        };
        match self.selector()? {
            Some(selector) => Ok(self.finish(selector, Operator::In, negated, value)),
            None => Err(self.expected("a selector")),
        }
    }

    fn finish(&mut self, selector: Vec<String>, operator: Operator, negated: bool, value: String) -> Expression {
        self.matches += 1;
        Expression::Match(Match { selector, operator, negated, value })
    }

    fn operator_before_value(&mut self) -> Option<(Operator, bool)> {
        const SIGNS: [(&str, bool); 2] = [("==", false), ("!=", true)];
        const WORDS: [(&[&str], Operator, bool); 4] = [
            (&["contains"], Operator::In, false),
            (&["not", "contains"], Operator::In, true),
            (&["matches"], Operator::Matches, false),
            (&["not", "matches"], Operator::Matches, true),
        ];
        let start = self.at;
        self.skip_space();
        for (sign, negated) in SIGNS {
            if self.take(sign) {
                self.skip_space();
                return Some((Operator::Equal, negated));
            }
        }
        self.at = start;
        WORDS
            .into_iter()
            .find(|(words, ..)| self.take_words(words, true))
            .map(|(_, operator, negated)| (operator, negated))
    }

    fn word(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        if !rest.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) {
            return None;
        }
        let length = rest.bytes().position(|byte| !byte.is_ascii_alphanumeric() && byte != b'_').unwrap_or(rest.len());
        self.at += length;
        Some(&rest[..length])
    }

    fn selector(&mut self) -> Result<Option<Vec<String>>, Problem> {
        let Some(first) = self.word() else { return Ok(None) };
        let mut parts = vec![first.to_owned()];
        loop {
            match self.peek() {
                Some(b'.') => {
                    self.at += 1;
                    match self.word() {
                        Some(word) => parts.push(word.to_owned()),
                        None => return Err(self.expected("a name after the dot")),
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.skip_space();
                    match self.string()? {
                        Some(text) => parts.push(text),
                        None => return Err(self.expected("a quoted text: invalid index")),
                    }
                    self.skip_space();
                    if !self.take("]") {
                        return Err(self.expected("\"]\": unclosed index expression"));
                    }
                }
                _ => return Ok(Some(parts)),
            }
        }
    }

    fn value(&mut self) -> Result<String, Problem> {
        if let Some(selector) = self.selector()? {
            return Ok(selector.join("."));
        }
        if let Some(text) = self.string()? {
            return Ok(text);
        }
        self.number()
    }

    fn number(&mut self) -> Result<String, Problem> {
        let start = self.at;
        let digits = |it: &mut Self| {
            let from = it.at;
            while it.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                it.at += 1;
            }
            it.at > from
        };
        self.take("-");
        // A leading zero stands alone.
        let mut valid = self.take("0") || digits(self);
        if valid && self.take(".") {
            valid = digits(self);
        }
        if !valid {
            self.at = start;
            return Err(self.expected("a selector, a number or a quoted text"));
        }
        if self.peek().is_some_and(|byte| !is_space(byte) && byte != b')') {
            self.at = start;
            return Err(self.expected("a number: invalid number literal"));
        }
        Ok(self.text[start..self.at].to_owned())
    }

    fn string(&mut self) -> Result<Option<String>, Problem> {
        let start = self.at;
        let Some(quote @ (b'"' | b'`')) = self.peek() else { return Ok(None) };
        let inner = start + 1;
        let bytes = self.text.as_bytes();
        let mut end = inner;
        while end < bytes.len() && bytes[end] != quote {
            // An escaped quote does not end the text.
            end += if quote == b'"' && bytes[end] == b'\\' { 2 } else { 1 };
        }
        if end >= bytes.len() {
            return Err(self.syntax_at(start, "unterminated string literal".into()));
        }
        self.at = end + 1;
        let between = &self.text[inner..end];
        let text = if quote == b'`' { Some(between.replace('\r', "")) } else { unquote(between) };
        match text {
            Some(text) => Ok(Some(text)),
            None => Err(self.syntax_at(start, "invalid syntax: no such escape, or no UTF-8 text".into())),
        }
    }
}

fn one_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}
