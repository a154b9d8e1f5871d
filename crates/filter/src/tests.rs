//! The grammar and the operators, over a row of every kind of field.

use std::collections::BTreeMap;

use super::*;

struct Inner {
    name: String,
    port: i64,
}

struct Row {
    name: String,
    alive: bool,
    port: i64,
    size: u64,
    weight: f64,
    tags: Vec<String>,
    meta: BTreeMap<String, String>,
    inner: Inner,
    list: Vec<Inner>,
    by_key: BTreeMap<String, Inner>,
}

fn inner(of: &mut Fields<'_, Inner>) {
    of.text("Name", |it| &it.name).integer("Port", |it| it.port);
}

fn row(of: &mut Fields<'_, Row>) {
    of.text("Name", |it| &it.name)
        .boolean("Alive", |it| it.alive)
        .integer("Port", |it| it.port)
        .unsigned("Size", |it| it.size)
        .float("Weight", |it| it.weight)
        .texts("Tags", |it| &it.tags)
        .texts_by_key("Meta", |it| &it.meta)
        .within("Inner", |it| &it.inner, inner)
        .structs("List", |it| &it.list, inner)
        .structs_by_key("ByKey", |it| &it.by_key, inner)
        .text("not", |it| &it.name)
        .text("in", |it| &it.name);
}

fn sample() -> Row {
    let inner = |name: &str, port| Inner { name: name.into(), port };
    Row {
        name: "web-1".into(),
        alive: true,
        port: 8080,
        size: 7,
        weight: 0.5,
        tags: vec!["v1".into(), "blue green".into()],
        meta: BTreeMap::from([("os".into(), "linux".into()), ("my.key".into(), "x\"y".into())]),
        inner: inner("deep", 1),
        list: vec![inner("passing", 1), inner("critical", 2)],
        by_key: BTreeMap::from([("wan".into(), inner("far", 443))]),
    }
}

#[test]
fn an_expression_chooses_as_consul_does() {
    for (text, chosen) in [
        // Operators on a text.
        ("Name == web-1", None),
        ("Name == \"web-1\"", Some(true)),
        ("Name==`web-1`", Some(true)),
        ("Name != \"web-1\"", Some(false)),
        ("Name contains web", Some(true)),
        ("\"eb\" in Name", Some(true)),
        ("db not in Name", Some(true)),
        ("Name not contains web", Some(false)),
        ("Name matches \"^web-[0-9]$\"", Some(true)),
        ("Name matches `eb`", Some(true)),
        ("Name not matches `^db`", Some(true)),
        // A value that looks like a selector is its text.
        ("Inner.Name == deep", Some(true)),
        ("Name == a.b[\"c\"]", Some(false)),
        // Numbers and truths.
        ("Port == 8080 and Size == 7 and Weight == 0.5", Some(true)),
        ("Port == \"0x1f90\"", Some(true)),
        ("Port != -1", Some(true)),
        ("Alive == true", Some(true)),
        ("Alive != f", Some(true)),
        ("(Alive==true)", Some(true)),
        // Lists and maps.
        ("v1 in Tags", Some(true)),
        ("Tags contains \"blue green\"", Some(true)),
        ("v2 not in Tags", Some(true)),
        ("Tags is empty", Some(false)),
        ("Tags is not empty", Some(true)),
        ("os in Meta and Meta contains os", Some(true)),
        ("arch in Meta", Some(false)),
        ("Meta is not empty", Some(true)),
        ("Meta.os == linux", Some(true)),
        ("Meta[\"my.key\"] == \"x\\\"y\"", Some(true)),
        ("Meta[ `my.key` ] contains x", Some(true)),
        // What is not there.
        ("Meta.arch == amd64", Some(false)),
        ("Meta.arch != amd64", Some(true)),
        ("Meta.arch contains a", Some(false)),
        ("Meta.arch not contains a", Some(true)),
        ("Meta.arch matches `a`", Some(true)),
        ("Meta.arch not matches `a`", Some(true)),
        ("ByKey.lan.Port == 1", Some(false)),
        ("ByKey.lan.Port != 1", Some(true)),
        // Structs: any of a list.
        ("ByKey.wan.Port == 443 and wan in ByKey", Some(true)),
        ("List.Name == critical", Some(true)),
        ("List.Name != critical", Some(true)),
        ("not List.Name == critical", Some(false)),
        ("List.Name == warning", Some(false)),
        ("List is not empty", Some(true)),
        // Precedence, grouping, space.
        ("Port == 1 or Port == 8080 and Alive == true", Some(true)),
        ("Port == 8080 or Port == 1 and Alive == false", Some(true)),
        ("(Port == 8080 or Port == 1) and Alive == false", Some(false)),
        ("not Port == 1 and Alive == false", Some(false)),
        ("not (Port == 1 and Alive == false)", Some(true)),
        ("not not Port == 8080", Some(true)),
        ("not (not (Port == 8080))", Some(true)),
        (" \t\n( ( Port == 8080 ) )\r\n ", Some(true)),
        // Words of the grammar are names too.
        ("not == \"web-1\"", Some(true)),
        ("not not == \"web-1\"", Some(false)),
        ("in contains web", Some(true)),
        ("not in Name", Some(false)),
        ("in not in Tags", Some(true)),
    ] {
        let filter = Filter::compile(text, row);
        assert_eq!(filter.as_ref().ok().map(|it| it.matches(&sample())), chosen, "{text}: {:?}", filter.err());
    }
}

#[test]
fn what_is_wrong_is_told_in_consuls_words() {
    for (text, why) in [
        ("Nope == 1", "Selector \"Nope\" is not valid"),
        ("Name.deeper == 1", "Selector \"Name.deeper\" is not valid"),
        ("Tags.first == 1", "Selector \"Tags.first\" is not valid"),
        ("Meta.a.b == 1", "Selector \"Meta.a.b\" is not valid"),
        ("Inner.Nope == 1", "Selector \"Inner.Nope\" is not valid"),
        ("ByKey.wan.Nope.x == 1", "Selector \"ByKey.wan.Nope\" is not valid"),
        ("Inner == 1", "Invalid match operator \"Equal\" for selector \"Inner\""),
        ("Inner is empty", "Invalid match operator \"Is Empty\" for selector \"Inner\""),
        ("Tags == a", "Invalid match operator \"Equal\" for selector \"Tags\""),
        ("Meta matches a", "Invalid match operator \"Matches\" for selector \"Meta\""),
        ("Meta.os is not empty", "Invalid match operator \"Is Not Empty\" for selector \"Meta.os\""),
        ("Port contains 1", "Invalid match operator \"In\" for selector \"Port\""),
        ("1 not in Alive", "Invalid match operator \"Not In\" for selector \"Alive\""),
        ("List == 1", "Invalid match operator \"Equal\" for selector \"List\""),
        (
            "Port == x",
            "Failed to coerce value \"x\" for selector \"Port\": strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "Alive == maybe",
            "Failed to coerce value \"maybe\" for selector \"Alive\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        ("Name matches `(`", "Failed to compile regular expression \"(\": unclosed group"),
        ("", "1:1 (0): no match found, expected: a selector, a number or a quoted text; found the end"),
        ("Name = a", "1:6 (5): no match found, expected: an operator"),
        ("Name == a or", "1:11 (10): no match found, expected: \"and\", \"or\" or the end; found \"or\""),
        ("Name == a or ", "1:14 (13): no match found"),
        ("(Name == a", "1:11 (10): no match found, expected: \")\": unmatched parentheses; found the end"),
        ("Name == a)", "1:10 (9): no match found, expected: \"and\", \"or\" or the end; found \")\""),
        ("Name ==\n\"a", "2:1 (8): unterminated string literal"),
        ("Meta[os] == 1", "1:6 (5): no match found, expected: a quoted text: invalid index"),
        ("Meta[\"os\" == 1", "unclosed index expression"),
        ("Port == 12x", "invalid number literal"),
        ("Port == 012", "invalid number literal"),
        ("Name == \"\\q\"", "1:9 (8): invalid syntax"),
        ("not", "1:4 (3): no match found, expected: an operator"),
    ] {
        let error = Filter::compile(text, row).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("Failed to create boolean expression evaluator: "), "{text}: {error}");
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn everything_is_bounded() {
    let error = |text: &str| Filter::compile(text, row).err().map(|error| error.to_string()).unwrap_or_default();
    let ors = |count: usize| vec!["Port == 1"; count].join(" or ");
    assert_eq!(error(&ors(MATCHES_MAX)), "");
    assert!(error(&ors(MATCHES_MAX + 1)).contains("Number of match expressions (33) exceeds the limit (32)"));
    let equals = |length: usize| format!("Name == \"{}\"", "x".repeat(length));
    assert_eq!(error(&equals(VALUE_BYTES_MAX)), "");
    assert!(error(&equals(VALUE_BYTES_MAX + 1)).contains("Value in expression with length 513 for selector \"Name\""));
    let grouped = |depth: usize| format!("{}Port == 1{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(error(&grouped(DEPTH_MAX)), "");
    assert!(error(&grouped(DEPTH_MAX + 1)).contains("more than 64 parentheses"));
    assert!(error(&format!("{}Port == 1", "not ".repeat(1_000))).contains("more than 64 parentheses"));
    assert!(error(&"(".repeat(EXPRESSION_BYTES_MAX)).contains("more than 64"));
    assert!(error(&" ".repeat(EXPRESSION_BYTES_MAX + 1)).contains("at most 32768"));
    assert!(error("Name matches `(((a{100}){100}){100}){100}`").contains("Failed to compile regular expression"));
}

/// Small steps of a linear congruential generator: every seed is a case that can be run again.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

#[test]
fn no_text_makes_it_panic() {
    const PIECES: [&str; 38] = [
        "Name",
        "Meta",
        ".",
        "os",
        "[",
        "]",
        "\"",
        "`",
        "\\",
        "==",
        "!=",
        " ",
        "\n",
        "in",
        "not",
        "is",
        "empty",
        "contains",
        "matches",
        "and",
        "or",
        "(",
        ")",
        "-",
        "0",
        "1.5",
        "9999999999999999999999",
        "Tags",
        "List",
        "é",
        "\u{0}",
        "Port",
        "Alive",
        "true",
        "x{9}",
        "a|b",
        "😀",
        "ByKey.wan.Port",
    ];
    let mut taken = 0;
    for seed in 0..40_000 {
        let mut random = Seeded(seed);
        let text: String = (0..random.below(24)).map(|_| random.one_of(&PIECES)).collect();
        if let Ok(filter) = Filter::compile(&text, row) {
            filter.matches(&sample());
            taken += 1;
        }
    }
    // Most are nonsense, but not all: else nothing was tried.
    assert!(taken > 10, "{taken}");
}

/// An expression that is known to be right, and whether it holds: the reference computes truth while it writes the text.
fn generate(random: &mut Seeded, depth: usize) -> (String, bool) {
    const TRUE: [&str; 6] =
        ["Port == 8080", "v1 in Tags", "Meta.os==linux", "Name matches `^w`", "List.Port == 2", "Meta.arch != x"];
    const FALSE: [&str; 6] =
        ["Port != 8080", "Tags is empty", "Meta.arch == x", "Name == other", "List.Name == x", "Alive == 0"];
    match if depth == 0 { 0 } else { random.below(5) } {
        0 | 1 => {
            let holds = random.below(2) == 0;
            (random.one_of(if holds { &TRUE } else { &FALSE }).to_owned(), holds)
        }
        2 => {
            let (inner, holds) = generate(random, depth - 1);
            (format!("not ({inner})"), !holds)
        }
        kind => {
            let (left, first) = generate(random, depth - 1);
            let (right, second) = generate(random, depth - 1);
            let word = if kind == 3 { "and" } else { "or" };
            let holds = if kind == 3 { first && second } else { first || second };
            (format!("({left}) {word}\t({right})"), holds)
        }
    }
}

#[test]
fn it_agrees_with_a_reference_on_generated_expressions() {
    let mut taken = 0;
    for seed in 0..5_000 {
        let (text, holds) = generate(&mut Seeded(seed), 5);
        match Filter::compile(&text, row) {
            Ok(filter) => {
                taken += 1;
                assert_eq!(filter.matches(&sample()), holds, "seed {seed}: {text}");
            }
            Err(error) => assert!(error.to_string().contains("exceeds the limit (32)"), "seed {seed}: {text}: {error}"),
        }
    }
    assert!(taken > 4_000, "{taken}");
}
