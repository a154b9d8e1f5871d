//! The merged keys of all sources, as [`super::build`] reads them: their kinds are right by now.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lictor_types::Credential;
use serde_json::{Map, Value};

use super::ConfigProblem;

#[cfg(test)]
thread_local! {
    /// Every key that was asked for in this thread.
    pub(super) static ASKED: std::cell::RefCell<std::collections::BTreeSet<String>> = const {
        std::cell::RefCell::new(std::collections::BTreeSet::new())
    };
}

/// The merged keys, and where to say what is wrong with them.
pub(super) struct Keys<'a> {
    pub(super) root: &'a Map<String, Value>,
    pub(super) warnings: &'a mut Vec<String>,
    pub(super) problems: &'a mut Vec<ConfigProblem>,
}

impl Keys<'_> {
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.insert(path.to_owned()));
        let mut names = path.split('.');
        let first = self.root.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        self.get(path)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    pub(super) fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).map(PathBuf::from)
    }

    pub(super) fn flag(&self, path: &str) -> Option<bool> {
        self.get(path)?.as_bool()
    }

    pub(super) fn count(&self, path: &str) -> Option<u32> {
        self.get(path)?.as_u64().map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    pub(super) fn duration(&self, path: &str) -> Option<Duration> {
        lictor_types::duration::parse(self.get(path)?.as_str()?).ok()
    }

    pub(super) fn number(&self, path: &str) -> Option<f64> {
        self.get(path)?.as_f64()
    }

    pub(super) fn texts(&self, path: &str) -> Vec<String> {
        let texts = self.get(path).and_then(Value::as_array);
        texts.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    pub(super) fn text_map(&self, path: &str) -> BTreeMap<String, String> {
        let texts = self.get(path).and_then(Value::as_object);
        texts.into_iter().flatten().filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned()))).collect()
    }

    pub(super) fn credential(&self, path: &str) -> Option<Credential> {
        self.text(path).map(Credential::new)
    }

    /// `allow` or `deny`.
    pub(super) fn policy(&mut self, path: &str) -> Option<bool> {
        match self.text(path)?.as_str() {
            "allow" => Some(true),
            "deny" => Some(false),
            other => {
                self.invalid(format!("{path} {other:?} must be \"allow\" or \"deny\""));
                None
            }
        }
    }

    pub(super) fn invalid(&mut self, text: String) {
        self.problems.push(ConfigProblem::Invalid(text));
    }
}
