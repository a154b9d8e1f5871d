//! The checker is itself judged: by histories that are known to be good and bad, and by a search without any wit.

use std::collections::BTreeMap;

use lictor_tests::linearizability::*;

/// Histories of keys that have an order.
const GOOD_KEYS: &[&str] = &[
    "put a 1 @1-2; get a 1 @3-4",
    "get a - @1-2; put a 1 @3-4; get a 1 @5-6",
    "put a 1 @1-5; get a - @2-3; get a 1 @4-6",
    "put a 1 @1-6; put a 2 @2-5; get a 2 @7-8",
    "put a 1 @1-6; put a 2 @2-5; get a 1 @7-8",
    "put a 1 @1-9; put a 2 @2-8; get a 1 @3-4; get a 2 @5-6",
    "put a 1 @1-9; put a 2 @2-8; get a 2 @3-4; get a 1 @5-6",
    "put a 1 @1-2; put b 2 @3-4; get a 1 @5-6; get b 2 @7-8",
    "put a 1 @1-2; del a @3-4; get a - @5-6",
    "put a 1 @1-2; del a @3-9; get a 1 @4-5; get a - @6-7",
    "del a @1-2; get a - @3-4",
    "put a 1 @1-2; cas a 1 2 yes @3-4; get a 2 @5-6",
    "put a 1 @1-2; cas a 9 2 no @3-4; get a 1 @5-6",
    "cas a - 1 yes @1-2; get a 1 @3-4",
    "put a 1 @1-2; cas a - 2 no @3-4; get a 1 @5-6",
    "put a 1 @1-2; cas a 1 2 yes @3-6; cas a 1 3 no @4-5; get a 2 @7-8",
    "put a 1 @1-2; cas a 1 2 no @3-6; cas a 1 3 yes @4-5; get a 3 @7-8",
    "put a 1 @1-2; cas a 1 2 yes @3-4; cas a 2 3 yes @5-6; cas a 3 4 yes @7-8; get a 4 @9-10",
    "put a 1 @1-2; cas a 1 2 yes @3-9; get a 1 @4-5; get a 2 @6-7",
    "put a 1 @1-2; delcas a 1 yes @3-4; get a - @5-6",
    "put a 1 @1-2; delcas a 9 no @3-4; get a 1 @5-6",
    "delcas a 1 yes @1-2; get a - @3-4",
    "put a 1 @1-2; delcas a 1 yes @3-6; cas a 1 2 no @4-5; get a - @7-8",
    "put a 1 @1-2; delcas a 1 no @3-6; cas a 1 2 yes @4-5; get a 2 @7-8",
    "put a 1 @1-2; delcas a 1 yes @3-8; delcas a 1 yes @4-7; get a - @9-10",
    "put a 1 @1-2; del a @3-4; cas a - 2 yes @5-6; get a 2 @7-8",
    "list @1-2; put a 1 @3-4; list a=1 @5-6",
    "put a 1 @1-2; put b 2 @3-4; list a=1,b=2 @5-6",
    "put a 1 @1-9; put b 2 @2-8; list @3-4; list b=2 @5-6; list a=1,b=2 @10-11",
    "put a 1 @1-2; put b 2 @3-4; del a @5-9; list a=1,b=2 @6-7; list b=2 @8-10",
    "put a 1 @1-9; list a=1 @2-3; get a 1 @4-5",
    "put a 1 @1-9; put b 1 @1-9; list a=1 @2-3; get b - @4-5; list a=1,b=1 @6-7",
    "put a 1 @1-; get a - @2-3; get a 1 @4-5",
    "put a 1 @1-; get a - @2-3; get a - @4-5",
    "put a 1 @1-; get a - @90-91; get a 1 @92-93",
    "put a 1 @1-2; cas a 1 2 @3-; put a 3 @4-5; get a 3 @6-7",
    "put a 1 @1-2; cas a 1 2 @3-; get a 1 @4-5; get a 2 @6-7",
    "put a 1 @1-2; del a @3-; get a 1 @4-5; get a - @6-7; put a 2 @8-9; get a 2 @10-11",
    "put a 1 @1-2; del a @3-; get a 1 @4-5; put a 2 @6-7; get a - @8-9",
    "put a 1 @1-2; delcas a 1 @3-; get a 1 @4-5; put a 2 @6-7; get a 2 @8-9",
    "put a 1 @1-2; delcas a 1 @3-; get a - @4-5",
    "put a 1 @1-; put a 2 @1-; put a 3 @1-; get a 2 @2-3; get a 1 @4-5; get a 3 @6-7",
    "put a 1 @1-; put b 2 @1-; list b=2 @2-3; list a=1,b=2 @4-5",
    "put a 1 @1-; list @2-3; list @4-5",
    "get a - @1-; put a 1 @2-3; get a 1 @4-5",
    "put a 1#5 @1-2; put a 2#6 @3-4; get a 2 @5-6",
    "put a 1#6 @1-5; put a 2#5 @2-6; get a 1 @7-8",
    "put a 1#5 @1-9; put b 2#6 @2-8; list a=1 @3-4",
    "put a 1#5 @1-2; cas a 1 2#8 yes @3-4; put b 3#9 @5-6",
    "put a 1#9 @1-; put a 2#5 @2-3; get a 2 @4-5; get a 1 @6-7",
    "put a 1 @1-3; get a 1 @3-4",
    "put a 1 @1-10; cas a 1 2 yes @2-9; cas a 2 3 yes @3-8; get a 3 @11-12",
    "put a 1 @1-2; put a 2 @1-2; put a 3 @1-2; get a 2 @3-4",
    "cas a - 1 yes @1-8; cas a - 2 no @2-7; cas a - 3 no @3-6; get a 1 @9-10",
];

/// Histories of keys that have none.
const BAD_KEYS: &[&str] = &[
    // Stale reads, lost writes, values from nowhere.
    "put a 1 @1-2; get a - @3-4",
    "put a 1 @1-2; put a 2 @3-4; get a 1 @5-6",
    "get a 9 @1-2",
    "get a 1 @1-2; put a 1 @3-4",
    "put a 1 @1-2; put a 2 @3-8; get a 2 @4-5; get a 1 @6-7",
    "put a 1 @1-9; get a 1 @2-3; get a - @4-5",
    "put a 1 @1-9; put a 2 @2-8; get a 1 @10-11; get a 2 @12-13",
    "put a 1 @1-9; put a 2 @2-8; get a 1 @3-4; get a 2 @5-6; get a 1 @7-10",
    "put a 1 @1-2; put a 2 @3-4; put a 3 @5-6; get a 2 @7-8",
    "put a 1 @1-2; get a 1 @3-4; get a - @5-6; get a 1 @7-8",
    "put a 1 @1-6; put a 2 @2-5; get a 1 @7-8; get a 2 @9-10",
    "put a 1 @1-2; put b 2 @3-4; get b - @5-6",
    "put a 1 @1-2; get b 1 @3-4",
    // Deletes that are not, or come back.
    "put a 1 @1-2; del a @3-4; get a 1 @5-6",
    "put a 1 @1-2; del a @3-9; get a - @4-5; get a 1 @6-7",
    "put a 1 @1-2; del a @3-4; put a 2 @5-6; get a - @7-8",
    "del a @1-2; put a 1 @3-4; get a - @5-6",
    "put a 1 @1-2; del b @3-4; get a - @5-6",
    // Two that both took the same place; one that took a place that was gone.
    "put a 1 @1-2; cas a 1 2 yes @3-6; cas a 1 3 yes @4-5",
    "cas a - 1 yes @1-4; cas a - 2 yes @2-3",
    "put a 1 @1-2; put a 2 @3-4; cas a 1 3 yes @5-6",
    "put a 1 @1-2; cas a - 2 yes @3-4",
    "cas a 1 2 yes @1-2",
    "put a 1 @1-2; cas a 1 2 yes @3-4; cas a 1 3 yes @5-6",
    "put a 1 @1-2; cas a 1 2 yes @3-4; get a 1 @5-6",
    // One that says no and did it; one that says no without a cause.
    "put a 1 @1-2; cas a 1 2 no @3-4",
    "put a 1 @1-2; cas a 9 2 no @3-4; get a 2 @5-6",
    "cas a - 1 no @1-2",
    "put a 1 @1-2; cas a 1 2 no @3-6; get a 1 @7-8",
    "put a 1 @1-2; cas a 1 2 no @3-6; cas a 1 3 no @4-5; get a 1 @7-8",
    // Conditional deletes.
    "put a 1 @1-2; delcas a 9 yes @3-4",
    "put a 1 @1-2; delcas a 1 yes @3-4; get a 1 @5-6",
    "put a 1 @1-2; delcas a 1 no @3-4",
    "delcas a 1 no @1-2",
    "put a 1 @1-2; delcas a 9 no @3-4; get a - @5-6",
    "put a 1 @1-2; delcas a 1 yes @3-6; cas a 1 2 yes @4-5",
    "put a 1 @1-2; delcas a 1 yes @3-4; cas a 1 2 yes @5-6",
    "put a 1 @1-2; put a 2 @3-4; delcas a 1 yes @5-6; get a - @7-8",
    // Lists that show no moment.
    "put a 1 @1-2; list @3-4",
    "put a 1 @1-2; put b 2 @3-4; list b=2 @5-6",
    "put a 1 @1-2; put b 2 @3-9; list b=2 @4-5",
    "put a 1 @1-9; put b 2 @2-8; list a=1 @3-4; list b=2 @5-6",
    "put a 1 @1-2; put b 2 @3-4; put a 3 @5-6; put b 4 @7-8; list a=1,b=4 @9-10",
    "put a 1 @1-2; put b 2 @3-4; put a 3 @5-12; put b 4 @6-11; list a=3,b=2 @7-8; list a=1,b=4 @9-10",
    "put a 1 @1-2; list a=1,b=2 @3-4",
    "put a 1 @1-2; del a @3-4; list a=1 @5-6",
    // What nobody was told of happens once, and is not undone.
    "put a 1 @1-; get a 1 @2-3; get a - @4-5",
    "put a 1 @1-; get a 1 @2-3; put a 2 @4-5; get a 1 @6-7",
    "get a 1 @1-2; put a 1 @3-",
    "put a 1 @1-2; cas a 1 2 @3-; put a 3 @4-5; get a 3 @6-7; get a 2 @8-9",
    "put a 1 @1-2; del a @3-; get a - @4-5; get a 1 @6-7",
    "put a 1 @1-2; delcas a 9 @3-; get a - @4-5",
    "put a 1 @1-2; delcas a 1 @3-; put a 2 @4-5; get a - @6-7",
    "put a 1 @1-2; cas a 9 2 @3-; get a 2 @4-5",
    "put a 1 @1-; put b 2 @1-; list b=2 @2-3; list a=1 @4-5",
    "put a 1 @1-2; del a @3-; get a - @4-5; put a 2 @6-7; get a - @8-9",
    // Indexes that run against time.
    "put a 1#6 @1-2; put a 2#5 @3-4",
    "put a 1#5 @1-2; put b 2#5 @3-4",
    "put a 1#6 @1-5; put a 2#5 @2-6; get a 2 @7-8",
    "put a 1#5 @1-2; cas a 1 2#4 yes @3-4",
    "put a 1#5 @1-; get a 1 @2-3; put b 2#4 @4-5",
];

/// Histories of locks that have an order.
const GOOD_LOCKS: &[&str] = &[
    "acquire s 1 @1-2; release s yes @3-4; acquire t 2 @5-6",
    "acquire s 1 @1-6; acquire t no @2-5",
    "acquire s yes @1-2; acquire s yes @3-4",
    "acquire s 1 @1-2; end s @3-4; acquire t 2 @5-6",
    "acquire s 1 @1-2; end s @3-9; acquire t 2 @4-5",
    "acquire s @1-; acquire t no @2-3; holder s 1 @4-5",
    "acquire s @1-; acquire t 1 @2-3; release s no @4-5",
    "acquire s 1 @1-2; release s @3-; acquire t no @4-5; acquire t 2 @6-7",
    "holder - 0 @1-2; acquire s 1 @3-4; holder s 1 @5-6",
    "end s @1-2; acquire t 1 @3-4",
    "acquire s 1 @1-2; release s yes @3-6; acquire t 2 @4-5; holder t 2 @7-8",
];

/// Histories of locks that have none.
const BAD_LOCKS: &[&str] = &[
    // Two holders, in time and in tokens.
    "acquire s 1 @1-2; acquire t 2 @3-4",
    "acquire s yes @1-4; acquire t yes @2-3",
    "acquire s 1 @1-2; release s yes @3-4; acquire t 1 @5-6",
    "acquire s 2 @1-2; release s yes @3-4; acquire t 1 @5-6",
    "acquire s 1 @1-2; release t yes @3-4",
    "release s yes @1-2",
    "acquire s no @1-2",
    "acquire s 1 @1-2; end t @3-4; acquire t 2 @5-6",
    "acquire s 1 @1-2; release s yes @3-4; holder s 1 @5-6",
    "acquire s @1-; holder s 1 @2-3; acquire t yes @4-5",
    "acquire s 1 @1-2; end s @3-4; release s yes @5-6",
    "acquire s 1 @1-2; release s no @3-4",
];

/// Histories of transactions that have an order.
const GOOD_TRANSACTIONS: &[&str] = &[
    "[ set a 1 , set b 2 ] yes @1-2; list a=1,b=2 @3-4",
    "[ set a 1 , set b 2 ] yes @1-9; list @2-3; list a=1,b=2 @4-5",
    "[ set a 1 , set b 2 ] @1-; list @2-3; list a=1,b=2 @4-5",
    "[ set a 1 , set b 2 ] @1-; list @2-3; list @4-5",
    "[ is a - , set b 2 ] yes @1-2; [ is b - , set a 1 ] no @3-4; list b=2 @5-6",
    "[ is a - , set b 2 ] yes @1-6; [ is b - , set a 1 ] no @2-5; get a - @7-8",
    "put a 1 @1-2; [ cas a 1 2 , del b , list ] yes a=2 @3-4",
    "put a 1 @1-2; [ list , set a 2 , list ] yes a=1 | a=2 @3-4",
    "put a 1 @1-2; [ cas a 9 2 , set b 3 ] no @3-4; list a=1 @5-6",
    "put a 1 @1-9; [ list ] yes a=1 @2-3; get a 1 @4-5",
    "[ list ] yes @1-2; put a 1 @3-4; [ list ] yes a=1 @5-6",
    "[ set a 1#5 , set b 2#5 ] yes @1-2; [ set a 3#6 ] yes @3-4",
    "put a 1#4 @1-; [ set b 2#5 ] yes @2-3; get a 1 @4-5",
    "put a 1 @1-2; put b 2 @3-4; [ del a , del b ] yes @5-9; list a=1,b=2 @6-7; list @8-10",
];

/// Histories of transactions that have none.
const BAD_TRANSACTIONS: &[&str] = &[
    // Half of one is seen.
    "[ set a 1 , set b 2 ] yes @1-9; list a=1 @2-3",
    "[ set a 1 , set b 2 ] @1-; list b=2 @2-3",
    "[ set a 1 , set b 2 ] yes @1-9; get a 1 @2-3; get b - @4-5",
    "put a 1 @1-2; put b 2 @3-4; [ del a , del b ] yes @5-9; list b=2 @6-7",
    // It is done and says no, or says yes and is not done.
    "[ set a 1 , set b 2 ] yes @1-2; list @3-4",
    "[ set a 1 , set b 2 ] no @1-2",
    "put a 1 @1-2; [ cas a 9 2 , set b 3 ] no @3-4; get b 3 @5-6",
    "put a 1 @1-2; [ cas a 9 2 , set b 3 ] @3-; get b 3 @4-5",
    "put a 1 @1-2; [ cas a 9 2 ] yes @3-4",
    "put a 1 @1-2; [ is a - , set b 2 ] yes @3-4",
    "put a 1 @1-2; [ is a 1 , set b 2 ] no @3-4",
    // Write skew: each looked at what the other changed.
    "[ is a - , set b 2 ] yes @1-6; [ is b - , set a 1 ] yes @2-5",
    "put a 1 @1-2; put b 1 @3-4; [ is a 1 , del b ] yes @5-8; [ is b 1 , del a ] yes @6-7",
    // Reads of one that show no moment.
    "put a 1 @1-2; [ list ] yes @3-4",
    "put a 1 @1-2; [ list , set a 2 , list ] yes a=1 | a=1 @3-4",
    "put a 1 @1-2; [ list ] yes a=1 @3-4; put a 2 @5-6; [ list ] yes a=1 @7-8",
    "put a 1 @1-9; put b 2 @2-8; [ list ] yes a=1 @3-4; [ list ] yes b=2 @5-6",
    "[ set a 1 ] @1-; [ list ] yes a=1 @2-3; [ list ] yes @4-5",
    // Indexes.
    "[ set a 1#5 , set b 2#6 ] yes @1-2",
    "[ set a 1#6 , set b 2#6 ] yes @1-2; [ set a 3#6 ] yes @3-4",
    "put a 1#6 @1-2; [ set b 2#5 ] yes @3-4",
    "put a 1#6 @1-2; [ set b 2#5 ] @3-; get b 2 @4-5",
];

/// Histories of the catalog that have an order.
const GOOD_CATALOG: &[&str] = &[
    "all @1-2; reg n/i 1 @3-4; all n/i=1 @5-6",
    "reg n/i 1 @1-9; all @2-3; all n/i=1 @4-5",
    "reg n/i 1 @1-2; reg n/i 2 @3-4; all n/i=2 @5-6",
    "reg n/i 1 @1-2; reg m/i 2 @3-4; dereg n/i @5-6; all m/i=2 @7-8",
    "reg n/i 1 @1-2; reg n/j 2 @3-4; dereg n @5-6; all @7-8",
    "reg n/i 1 @1-2; reg m/i 2 @3-4; dereg n @5-9; all n/i=1,m/i=2 @6-7; all m/i=2 @8-10",
    "reg n/i 1 @1-; all @2-3; all n/i=1 @4-5",
    "reg n/i 1 @1-2; dereg n/i @3-; all n/i=1 @4-5; all @6-7",
    "dereg n/i @1-2; reg n/i 1 @3-4; all n/i=1 @5-6",
    "reg n/i 1 @1-2; dereg n/i @3-8; reg n/i 2 @4-7; all n/i=2 @9-10",
];

/// Histories of the catalog that have none.
const BAD_CATALOG: &[&str] = &[
    // One that is registered is seen by everybody who asks after the answer.
    "reg n/i 1 @1-2; all @3-4",
    "reg n/i 1 @1-2; reg m/i 2 @3-4; all n/i=1 @5-6",
    "reg n/i 1 @1-2; reg n/i 2 @3-4; all n/i=1 @5-6",
    "reg n/i 1 @1-9; all n/i=1 @2-3; all @4-5",
    // One that was deregistered is never handed out again.
    "reg n/i 1 @1-2; dereg n/i @3-4; all n/i=1 @5-6",
    "reg n/i 1 @1-2; dereg n/i @3-9; all @4-5; all n/i=1 @6-7",
    "reg n/i 1 @1-2; dereg n @3-4; all n/i=1 @5-6",
    "reg n/i 1 @1-2; reg n/j 2 @3-4; dereg n @5-9; all n/j=2 @6-7",
    "reg n/i 1 @1-2; dereg n/i @3-; all @4-5; all n/i=1 @6-7",
    "dereg n/i @1-2; reg n/i 1 @3-4; all @5-6",
    // What nobody registered, and what went with another.
    "all n/i=1 @1-2",
    "reg n/i 1 @1-2; reg m/i 2 @3-4; dereg n/i @5-6; all @7-8",
    "all n/i=1 @1-2; reg n/i 1 @3-",
    "reg n/i 1 @1-; all n/i=1 @2-3; reg n/i 2 @4-5; all n/i=1 @6-7",
];

#[test]
fn histories_of_transactions_and_of_the_catalog_are_judged_as_they_are() {
    for text in GOOD_TRANSACTIONS {
        assert_eq!(check(&history_of_keys(text), BUDGET), Verdict::Linearizable, "{text}");
    }
    for text in BAD_TRANSACTIONS {
        assert!(matches!(check(&history_of_keys(text), BUDGET), Verdict::Broken(_)), "{text}");
    }
    for text in GOOD_CATALOG {
        assert_eq!(check(&history_of_catalog(text), BUDGET), Verdict::Linearizable, "{text}");
    }
    for text in BAD_CATALOG {
        assert!(matches!(check(&history_of_catalog(text), BUDGET), Verdict::Broken(_)), "{text}");
    }
}

#[test]
fn histories_with_an_order_are_linearizable() {
    for text in GOOD_KEYS {
        assert_eq!(check(&history_of_keys(text), BUDGET), Verdict::Linearizable, "{text}");
    }
    for text in GOOD_LOCKS {
        assert_eq!(check(&history_of_locks(text), BUDGET), Verdict::Linearizable, "{text}");
    }
    assert!(GOOD_KEYS.len() + GOOD_LOCKS.len() >= 50);
}

#[test]
fn histories_without_an_order_are_broken() {
    for text in BAD_KEYS {
        assert!(matches!(check(&history_of_keys(text), BUDGET), Verdict::Broken(_)), "{text}");
    }
    for text in BAD_LOCKS {
        assert!(matches!(check(&history_of_locks(text), BUDGET), Verdict::Broken(_)), "{text}");
    }
    assert!(BAD_KEYS.len() + BAD_LOCKS.len() >= 50);
}

/// All orders, one after the other.
fn by_force<M: Model>(operations: &[Operation<M>], state: &M::State, done: &mut Vec<usize>) -> bool {
    let open: Vec<usize> = (0..operations.len()).filter(|at| !done.contains(at)).collect();
    if open.iter().all(|at| operations[*at].ended.is_none()) {
        return true;
    }
    let end = open.iter().filter_map(|at| operations[*at].ended).min().unwrap_or(u64::MAX);
    open.iter().filter(|at| operations[**at].began <= end).any(|at| {
        let Some(next) = M::step(state, &operations[*at].input, operations[*at].answer.as_ref()) else { return false };
        done.push(*at);
        let found = by_force(operations, &next, done);
        done.pop();
        found
    })
}

#[test]
fn the_search_agrees_with_one_that_tries_everything() {
    use lictor_runtime::{Rng, SeededRng};
    let rng = SeededRng::new(1);
    let mut broken = 0;
    for round in 0..4_000 {
        let count = 2 + rng.below(5);
        let operations: Vec<Operation<Register>> = (0..count)
            .map(|_| {
                let began = rng.below(12);
                let ended = (rng.below(5) > 0).then(|| began + 1 + rng.below(6));
                let (old, new) = (rng.below(4), 1 + rng.below(3));
                let (input, answer) = match rng.below(4) {
                    0 => ((None, Some(new)), Ok(true)),
                    1 => ((Some(old), Some(new)), Ok(rng.below(2) == 0)),
                    _ => ((None, None), Err(old)),
                };
                Operation { input, answer: ended.map(|_| answer), began, ended }
            })
            .collect();
        let expected = by_force(&operations, &0, &mut Vec::new());
        let found = check(&operations, BUDGET) == Verdict::Linearizable;
        assert_eq!(found, expected, "round {round}: {operations:?}");
        broken += u64::from(!expected);
    }
    assert!((400..3_600).contains(&broken), "{broken} of 4000 were broken: the generator says little");
}

#[test]
fn a_search_that_meets_its_budget_says_so_and_is_no_pass() {
    let wide: String = (0..14).map(|at| format!("put a {at} @1-;")).collect();
    let history = history_of_keys(&format!("{wide} get a 99 @2-3"));
    assert_eq!(check(&history, 1_000), Verdict::Unknown);
    let parts = BTreeMap::from([("a".to_owned(), history)]);
    assert!(check_parts(&parts, 1_000)[0].contains("no pass"));
}

#[test]
fn parts_are_judged_by_themselves_and_the_broken_ones_are_shown() {
    let part = |text| history_of_keys(text);
    let parts = BTreeMap::from([
        ("good".to_owned(), part("put a 1 @1-2; get a 1 @3-4")),
        ("bad".to_owned(), part("put a 1 @1-2; get a - @3-4")),
    ]);
    let wrong = check_parts(&parts, BUDGET);
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].starts_with("bad is not linearizable") && wrong[0].contains("! Operation"), "{}", wrong[0]);
}
