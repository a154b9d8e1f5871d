//! What a command says, and how it ends.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// What a command that did its work has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// For the standard output; bytes, because a value in the store may be any.
    pub(crate) bytes: Vec<u8>,
    /// For the standard error: remarks that are no answer.
    pub(crate) remark: String,
    /// The exit code.
    pub(crate) code: u8,
}

impl Output {
    /// One line.
    pub(crate) fn line(text: impl Into<String>) -> Self {
        let mut bytes = text.into().into_bytes();
        bytes.push(b'\n');
        Self { bytes, ..Self::default() }
    }

    /// Several lines; none when there is none.
    pub(crate) fn lines<T: AsRef<str>>(lines: impl IntoIterator<Item = T>) -> Self {
        let mut output = Self::default();
        for line in lines {
            output.push_line(line.as_ref().as_bytes());
        }
        output
    }

    /// Adds a line of any bytes.
    pub(crate) fn push_line(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.bytes.push(b'\n');
    }

    /// No answer, but a remark: nothing was found, say.
    pub(crate) fn remark(text: &str) -> Self {
        Self { remark: format!("{text}\n"), ..Self::default() }
    }

    /// The same with another exit code.
    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// A value as JSON for people, with as many spaces of indentation as Consul has in that place.
    ///
    /// # Errors
    /// The value cannot stand in JSON, which none of ours does.
    pub(crate) fn json<T: serde::Serialize>(value: &T, indentation: usize) -> Result<Self, Failure> {
        let spaces = " ".repeat(indentation);
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
        value
            .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
            .map_err(Failure::because("Error printing JSON"))?;
        bytes.push(b'\n');
        Ok(Self { bytes, ..Self::default() })
    }
}

/// Why a command did not do its work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// A failure in these words.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }

    /// Makes a failure `what: cause` of a cause.
    pub(crate) fn because<E: Display>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |cause| Self::new(format!("{what}: {cause}"))
    }

    /// A failure by an error, with what caused it, down to the first cause.
    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            let next_text = next.to_string();
            // Some errors tell their cause themselves.
            if !text.ends_with(&next_text) {
                text = format!("{text}: {next_text}");
            }
            cause = next.source();
        }
        Self::new(text)
    }

    /// The same with another exit code.
    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

/// Prints what came of a command and gives the exit code.
pub(crate) fn report(result: Result<Output, Failure>) -> ExitCode {
    match result {
        Ok(Output { bytes, remark, code }) => {
            eprint!("{remark}");
            let mut out = std::io::stdout().lock();
            match out.write_all(&bytes).and_then(|()| out.flush()) {
                Ok(()) => ExitCode::from(code),
                // The reader had enough, as `head` has: not our failure, and nobody is left to read of it.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(code),
                Err(error) => {
                    eprintln!("Error writing to the standard output: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Link {
        words: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn an_error_is_told_with_its_causes_each_once() {
        let end = Link { words: "in use", source: None };
        let middle = Link { words: "cannot listen: in use", source: Some(Box::new(end)) };
        let outer = Link { words: "cannot start", source: Some(Box::new(middle)) };
        assert_eq!(Failure::of(&outer).to_string(), "cannot start: cannot listen: in use");
    }
}
