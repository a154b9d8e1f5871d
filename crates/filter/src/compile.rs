//! An expression bound to the fields of a row.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use crate::coerce;
use crate::error::{FilterError, Problem};
use crate::parse::{Expression, Match, Operator, parse};
use crate::{REGEX_BYTES_MAX, VALUE_BYTES_MAX};

/// Whether one value fits.
type Test<T> = Box<dyn Fn(&T) -> bool + Send + Sync>;

/// An expression that rows of type `T` can be held against.
pub struct Filter<T: ?Sized>(Node<T>);

enum Node<T: ?Sized> {
    Any(Vec<Node<T>>),
    All(Vec<Node<T>>),
    Not(Box<Node<T>>),
    Match(Test<T>),
}

impl<T: 'static> Filter<T> {
    /// Reads an expression over rows whose fields `fields` names.
    ///
    /// # Errors
    /// It is no expression, selects what is no field, or compares a field with what it cannot be compared with.
    pub fn compile(text: &str, fields: fn(&mut Fields<'_, T>)) -> Result<Self, FilterError> {
        Ok(Self(bind(&parse(text)?, fields)?))
    }

    /// Whether a row is chosen.
    pub fn matches(&self, row: &T) -> bool {
        self.0.holds(row)
    }
}

impl<T: ?Sized> Node<T> {
    fn holds(&self, row: &T) -> bool {
        match self {
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(row)),
            Self::All(nodes) => nodes.iter().all(|node| node.holds(row)),
            Self::Not(node) => !node.holds(row),
            Self::Match(test) => test(row),
        }
    }
}

fn bind<T: 'static>(expression: &Expression, fields: fn(&mut Fields<'_, T>)) -> Result<Node<T>, Problem> {
    let all = |parts: &[Expression]| parts.iter().map(|part| bind(part, fields)).collect::<Result<Vec<_>, _>>();
    Ok(match expression {
        Expression::Any(parts) => Node::Any(all(parts)?),
        Expression::All(parts) => Node::All(all(parts)?),
        Expression::Not(inner) => Node::Not(Box::new(bind(inner, fields)?)),
        Expression::Match(wanted) => {
            if wanted.value.len() > VALUE_BYTES_MAX {
                return Err(Problem::ValueTooLong(wanted.value.len(), wanted.selector.join(".")));
            }
            Node::Match(descend(wanted, 0, fields)?)
        }
    })
}

/// The field of a struct that the selector names at `depth`.
fn descend<T: 'static>(wanted: &Match, depth: usize, fields: fn(&mut Fields<'_, T>)) -> Result<Test<T>, Problem> {
    if depth == wanted.selector.len() {
        return Err(no_operator(wanted));
    }
    let mut scope = Fields { wanted, depth, found: None };
    fields(&mut scope);
    scope.found.unwrap_or_else(|| Err(Problem::Selector(wanted.selector[..=depth].join("."))))
}

fn no_operator(wanted: &Match) -> Problem {
    Problem::Operator { operator: wanted.operator_name(), selector: wanted.selector.join(".") }
}

/// Where a row type tells its fields; the one that the selector names is bound, the others are passed by.
pub struct Fields<'a, T: ?Sized> {
    wanted: &'a Match,
    depth: usize,
    found: Option<Result<Test<T>, Problem>>,
}

impl<T: 'static> Fields<'_, T> {
    fn is(&self, name: &str) -> bool {
        self.found.is_none() && self.wanted.selector[self.depth] == name
    }

    /// How much of the selector is left behind this field.
    fn is_last(&self) -> bool {
        self.depth + 1 == self.wanted.selector.len()
    }

    fn leaf(&mut self, bound: impl FnOnce(&Match) -> Result<Test<T>, Problem>) {
        let wanted = self.wanted;
        self.found = Some(if self.is_last() {
            bound(wanted)
        } else {
            Err(Problem::Selector(wanted.selector[..=self.depth + 1].join(".")))
        });
    }

    /// A text.
    pub fn text(&mut self, name: &str, get: fn(&T) -> &str) -> &mut Self {
        if self.is(name) {
            self.leaf(|wanted| text(wanted).map(|test| -> Test<T> { Box::new(move |row| test(get(row))) }));
        }
        self
    }

    /// A truth.
    pub fn boolean(&mut self, name: &str, get: fn(&T) -> bool) -> &mut Self {
        if self.is(name) {
            self.leaf(|wanted| equal(wanted, coerce::boolean, get));
        }
        self
    }

    /// A whole number with a sign.
    pub fn integer(&mut self, name: &str, get: fn(&T) -> i64) -> &mut Self {
        if self.is(name) {
            self.leaf(|wanted| equal(wanted, coerce::integer, get));
        }
        self
    }

    /// A whole number without a sign.
    pub fn unsigned(&mut self, name: &str, get: fn(&T) -> u64) -> &mut Self {
        if self.is(name) {
            self.leaf(|wanted| equal(wanted, coerce::unsigned, get));
        }
        self
    }

    /// A number.
    pub fn float(&mut self, name: &str, get: fn(&T) -> f64) -> &mut Self {
        if self.is(name) {
            self.leaf(|wanted| equal(wanted, coerce::float, get));
        }
        self
    }

    /// A list of texts.
    pub fn texts(&mut self, name: &str, get: fn(&T) -> &[String]) -> &mut Self {
        if self.is(name) {
            self.leaf(|wanted| {
                let value = wanted.value.clone();
                container(wanted, move |row: &T| get(row).is_empty(), move |row| get(row).contains(&value))
            });
        }
        self
    }

    /// A list of texts within JSON; what is no text there is in no list.
    pub fn values(&mut self, name: &str, get: fn(&T) -> &[serde_json::Value]) -> &mut Self {
        if self.is(name) {
            self.leaf(|wanted| {
                let value = wanted.value.clone();
                let has = move |row: &T| get(row).iter().any(|it| it.as_str() == Some(value.as_str()));
                container(wanted, move |row: &T| get(row).is_empty(), has)
            });
        }
        self
    }

    /// Texts by key.
    pub fn texts_by_key(&mut self, name: &str, get: fn(&T) -> &BTreeMap<String, String>) -> &mut Self {
        if self.is(name) {
            self.found = Some(self.by_key(get, |wanted, depth| {
                if depth < wanted.selector.len() {
                    return Err(Problem::Selector(wanted.selector[..=depth].join(".")));
                }
                text(wanted).map(|test| -> Test<String> { Box::new(move |value| test(value)) })
            }));
        }
        self
    }

    /// Structs by key.
    pub fn structs_by_key<U: 'static>(
        &mut self,
        name: &str,
        get: fn(&T) -> &BTreeMap<String, U>,
        fields: fn(&mut Fields<'_, U>),
    ) -> &mut Self {
        if self.is(name) {
            self.found = Some(self.by_key(get, |wanted, depth| descend(wanted, depth, fields)));
        }
        self
    }

    fn by_key<U: 'static>(
        &self,
        get: fn(&T) -> &BTreeMap<String, U>,
        inner: impl FnOnce(&Match, usize) -> Result<Test<U>, Problem>,
    ) -> Result<Test<T>, Problem> {
        let wanted = self.wanted;
        if self.is_last() {
            let value = wanted.value.clone();
            return container(wanted, move |row: &T| get(row).is_empty(), move |row| get(row).contains_key(&value));
        }
        let key = wanted.selector[self.depth + 1].clone();
        let test = inner(wanted, self.depth + 2)?;
        // What is not there equals nothing and is in nothing. Consul says that it matches every pattern: so do we.
        let without = match (wanted.operator, wanted.negated) {
            (Operator::Equal | Operator::In, false) | (Operator::IsEmpty, true) => false,
            (Operator::Equal | Operator::In, true) | (Operator::IsEmpty, false) | (Operator::Matches, _) => true,
        };
        Ok(Box::new(move |row| get(row).get(&key).map_or(without, &test)))
    }

    /// A struct within.
    pub fn within<U: 'static>(&mut self, name: &str, get: fn(&T) -> &U, fields: fn(&mut Fields<'_, U>)) -> &mut Self {
        if self.is(name) {
            let test = descend(self.wanted, self.depth + 1, fields);
            self.found = Some(test.map(|test| -> Test<T> { Box::new(move |row| test(get(row))) }));
        }
        self
    }

    /// A list of structs: a match on a field holds if it holds for any of them.
    pub fn structs<U: 'static>(
        &mut self,
        name: &str,
        get: fn(&T) -> &[U],
        fields: fn(&mut Fields<'_, U>),
    ) -> &mut Self {
        if self.is(name) {
            self.found = Some(if self.is_last() {
                emptiness(self.wanted, move |row: &T| get(row).is_empty())
            } else {
                let test = descend(self.wanted, self.depth + 1, fields);
                test.map(|test| -> Test<T> { Box::new(move |row| get(row).iter().any(&test)) })
            });
        }
        self
    }
}

/// A test of a number or a truth: equality alone.
fn equal<T: 'static, V: PartialEq + Send + Sync + 'static>(
    wanted: &Match,
    coerce: fn(&str) -> Result<V, String>,
    get: fn(&T) -> V,
) -> Result<Test<T>, Problem> {
    if wanted.operator != Operator::Equal {
        return Err(no_operator(wanted));
    }
    let value = coerce(&wanted.value).map_err(|why| Problem::Coercion {
        value: wanted.value.clone(),
        selector: wanted.selector.join("."),
        why,
    })?;
    let equals = !wanted.negated;
    Ok(Box::new(move |row| (get(row) == value) == equals))
}

/// A test of a text.
fn text(wanted: &Match) -> Result<Test<str>, Problem> {
    let value = wanted.value.clone();
    let holds = !wanted.negated;
    match wanted.operator {
        Operator::Equal => Ok(Box::new(move |text| (text == value) == holds)),
        Operator::In => Ok(Box::new(move |text| text.contains(&value) == holds)),
        Operator::Matches => {
            let pattern = regex(&wanted.value)?;
            Ok(Box::new(move |text| pattern.is_match(text) == holds))
        }
        Operator::IsEmpty => Err(no_operator(wanted)),
    }
}

fn regex(pattern: &str) -> Result<Regex, Problem> {
    let build = RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build();
    build.map_err(|error| Problem::Regex {
        pattern: pattern.to_owned(),
        // The library draws a picture of several lines; its last one says what is wrong.
        why: error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    })
}

/// A test of a list or a map: what is in it, and whether anything is.
fn container<T: 'static>(
    wanted: &Match,
    is_empty: impl Fn(&T) -> bool + Send + Sync + 'static,
    has: impl Fn(&T) -> bool + Send + Sync + 'static,
) -> Result<Test<T>, Problem> {
    let holds = !wanted.negated;
    match wanted.operator {
        Operator::In => Ok(Box::new(move |row| has(row) == holds)),
        Operator::IsEmpty | Operator::Equal | Operator::Matches => emptiness(wanted, is_empty),
    }
}

fn emptiness<T: 'static>(
    wanted: &Match,
    is_empty: impl Fn(&T) -> bool + Send + Sync + 'static,
) -> Result<Test<T>, Problem> {
    if wanted.operator != Operator::IsEmpty {
        return Err(no_operator(wanted));
    }
    let holds = !wanted.negated;
    Ok(Box::new(move |row| is_empty(row) == holds))
}
