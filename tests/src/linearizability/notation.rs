//! Histories written by hand.
//!
//! Operations are divided by `;`. Each is its words and its time, `@began-ended` or `@began-` when nobody knows the
//! answer:
//! `put k v`, `put k v#7` (its index), `cas k old new yes|no` (`-` is no value), `del k`, `delcas k old yes|no`,
//! `get k v`, `list k=v,k=v`, and for locks `acquire s 1|yes|no`, `release s yes|no`, `end s`, `holder s|- 1`.
//!
//! A transaction is its steps in brackets and what became of it: `[ set k v , cas k old new , del k , is k v|- , list ] no`,
//! or `yes` and what each of its lists found: `yes k=v,k=v | k=v`. For the catalog: `reg n/i v`, `dereg n/i`, `dereg n`,
//! `all n/i=v,n/i=v`.

use std::collections::BTreeMap;

use super::catalog::{Catalog, CatalogAnswer, CatalogInput, Instance};
use super::models::{Entry, KeyValue, KvAnswer, KvInput, KvStep, Lock, LockAnswer, LockInput};
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

fn pairs(words: &[&str]) -> BTreeMap<String, String> {
    let pairs = words.iter().flat_map(|part| part.split(','));
    let pairs = pairs.map(|pair| pair.split_once('=').expect("key=value"));
    pairs.map(|(key, value)| (key.into(), value.into())).collect()
}

fn transaction(words: &[&str]) -> (KvInput, Option<KvAnswer>) {
    let end = words.iter().position(|word| *word == "]").expect("a transaction ends");
    let steps = words[..end].split(|word| *word == ",").map(|step| match step {
        ["set", key, new] => KvStep::Set((*key).into(), entry(new)),
        ["cas", key, old, new] => KvStep::Cas((*key).into(), value(old), entry(new)),
        ["del", key] => KvStep::Delete((*key).into()),
        ["is", key, expected] => KvStep::Is((*key).into(), value(expected)),
        ["list"] => KvStep::List,
        other => panic!("{other:?} is no step of a transaction"),
    });
    let steps: Vec<KvStep> = steps.collect();
    let lists = steps.iter().filter(|step| **step == KvStep::List).count();
    let answer = match &words[end + 1..] {
        [] => None,
        ["no"] => Some(KvAnswer::NotApplied),
        ["yes", found @ ..] => {
            let found: Vec<_> = found.split(|word| *word == "|").take(lists).map(pairs).collect();
            assert_eq!(found.len(), lists, "what each list found is divided by |");
            Some(KvAnswer::Found(found))
        }
        other => panic!("{other:?} is not what becomes of a transaction"),
    };
    (KvInput::Transaction(steps), answer)
}

/// A history of the catalog.
pub fn history_of_catalog(text: &str) -> Vec<Operation<Catalog>> {
    let instance = |text: &str| -> Instance {
        let (node, id) = text.split_once('/').unwrap_or_else(|| panic!("{text:?} is no node/instance"));
        (node.into(), id.into())
    };
    operations(text, |words| match words {
        ["reg", place, content] => {
            (CatalogInput::Register(instance(place), (*content).into()), Some(CatalogAnswer::Done))
        }
        ["dereg", place] if place.contains('/') => {
            (CatalogInput::Deregister(instance(place)), Some(CatalogAnswer::Done))
        }
        ["dereg", node] => (CatalogInput::DeregisterNode((*node).into()), Some(CatalogAnswer::Done)),
        ["all", all @ ..] => {
            let all = pairs(all).into_iter().map(|(place, content)| (instance(&place), content)).collect();
            (CatalogInput::Instances, Some(CatalogAnswer::Registered(all)))
        }
        other => panic!("{other:?} is no operation on the catalog"),
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
        ["list", all @ ..] => (KvInput::List, Some(KvAnswer::All(pairs(all)))),
        ["[", rest @ ..] => transaction(rest),
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
