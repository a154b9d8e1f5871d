//! Histories written by hand.
//!
//! Operations are divided by `;`. Each is its words and its time, `@began-ended` or `@began-` when nobody knows the
//! answer:
//! `put k v`, `put k v#7` (its index), `cas k old new yes|no` (`-` is no value), `del k`, `delcas k old yes|no`,
//! `get k v`, `list k=v,k=v`, and for locks `acquire s 1|yes|no`, `release s yes|no`, `end s`, `holder s|- 1`.

use std::collections::BTreeMap;

use super::models::{Entry, KeyValue, KvAnswer, KvInput, Lock, LockAnswer, LockInput};
use super::{Model, Operation};

fn operations<M: Model>(text: &str, read: impl Fn(&[&str]) -> (M::Input, Option<M::Answer>)) -> Vec<Operation<M>> {
    let each = text.split(';').map(str::trim).filter(|it| !it.is_empty());
    each.map(|operation| {
        let (what, when) = operation.split_once('@').unwrap_or_else(|| panic!("{operation:?} has no time"));
        let (began, ended) = when.trim().split_once('-').unwrap_or_else(|| panic!("{operation:?} has no end"));
        let time = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text:?} in {operation:?} is no time"));
        let words: Vec<&str> = what.split_whitespace().collect();
        let (input, answer) = read(&words);
        let ended = (!ended.is_empty()).then(|| time(ended));
        Operation { input, answer: answer.filter(|_| ended.is_some()), began: time(began), ended }
    })
    .collect()
}

fn entry(text: &str) -> Entry {
    match text.split_once('#') {
        Some((value, index)) => Entry { value: value.into(), index: Some(index.parse().expect("an index")) },
        None => Entry { value: text.into(), index: None },
    }
}

fn value(text: &str) -> Option<String> {
    (text != "-").then(|| text.to_owned())
}

fn done(words: &[&str], at: usize) -> Option<KvAnswer> {
    words.get(at).map(|word| match *word {
        "yes" => KvAnswer::Done,
        "no" => KvAnswer::NotApplied,
        other => panic!("{other:?} is neither yes nor no"),
    })
}

/// A history of keys.
pub fn history_of_keys(text: &str) -> Vec<Operation<KeyValue>> {
    operations(text, |words| match words {
        ["put", key, new] => (KvInput::Put((*key).into(), entry(new)), Some(KvAnswer::Done)),
        ["cas", key, old, new, ..] => (KvInput::Cas((*key).into(), value(old), entry(new)), done(words, 4)),
        ["del", key] => (KvInput::Delete((*key).into()), Some(KvAnswer::Done)),
        ["delcas", key, old, ..] => (KvInput::DeleteCas((*key).into(), (*old).into()), done(words, 3)),
        ["get", key, read] => (KvInput::Get((*key).into()), Some(KvAnswer::Value(value(read)))),
        ["list", all @ ..] => {
            let pairs = all.iter().flat_map(|part| part.split(','));
            let pairs = pairs.map(|pair| pair.split_once('=').expect("key=value"));
            let all: BTreeMap<String, String> = pairs.map(|(key, value)| (key.into(), value.into())).collect();
            (KvInput::List, Some(KvAnswer::All(all)))
        }
        other => panic!("{other:?} is no operation on keys"),
    })
}

/// A history of a lock.
pub fn history_of_locks(text: &str) -> Vec<Operation<Lock>> {
    operations(text, |words| match words {
        ["acquire", session, rest @ ..] => {
            let answer = rest.first().map(|word| match *word {
                "no" => LockAnswer::Refused,
                "yes" => LockAnswer::Granted(None),
                token => LockAnswer::Granted(Some(token.parse().expect("a token"))),
            });
            (LockInput::Acquire((*session).into()), answer)
        }
        ["release", session, rest @ ..] => {
            let answer = rest.first().map(|word| if *word == "yes" { LockAnswer::Done } else { LockAnswer::Refused });
            (LockInput::Release((*session).into()), answer)
        }
        ["end", session] => (LockInput::Invalidate((*session).into()), Some(LockAnswer::Done)),
        ["holder", session, token] => {
            (LockInput::Holder, Some(LockAnswer::Held(value(session), token.parse().expect("a token"))))
        }
        other => panic!("{other:?} is no operation on a lock"),
    })
}
