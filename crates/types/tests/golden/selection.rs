//! The bytes of questions with a choice, of coordinates and of config entries, pinned for ever; see `golden.rs`.

use std::collections::BTreeMap;

use lictor_types::{
    Answer, Command, Coordinate, Near, NodeCoordinate, Operation, Query, Selection, encoding, query::ServiceQuery,
};

use super::check;

fn coordinate() -> NodeCoordinate {
    let mut coord = Coordinate { error: 0.25, adjustment: -0.000_1, ..Coordinate::default() };
    coord.vec[2] = 0.012_5;
    NodeCoordinate { node: "web-1.apps".parse().unwrap(), segment: String::new(), coord }
}

fn selection(near: Option<Near>) -> Query {
    let query = Query::HealthService(ServiceQuery::all("web".parse().unwrap()));
    Query::Selected(Box::new(Selection { query, filter: "Checks.Status == passing".into(), near, merge: None }))
}

#[test]
fn questions_with_a_choice_are_as_they_were() {
    check("query_selected", selection(None));
    check("query_selected_near", selection(Some(Near::Node("n1".into()))));
    check("query_selected_near_address", selection(Some(Near::Address("10.0.0.1".into()))));
}

#[test]
fn coordinates_are_as_they_were() {
    check("command_coordinates_set", Command::CoordinatesSet(vec![coordinate()]));
    check("operation_update_coordinate", Operation::UpdateCoordinate(coordinate()));
    check("answer_coordinates", Answer::Coordinates(vec![coordinate()]));
    check("query_coordinates", Query::Coordinates);
    check("query_coordinates_of", Query::CoordinatesOf("n1".parse().unwrap()));
}

#[test]
fn a_selection_within_a_selection_is_refused_however_deep() {
    let inner = encoding::encode(&Query::Nodes(BTreeMap::new()));
    let wrap = |inner: &[u8]| {
        // [30, [{0: inner, 1: ""}]]
        let mut bytes = vec![0x82, 0x18, 30, 0x81, 0xa2, 0x00];
        bytes.extend_from_slice(inner);
        bytes.extend_from_slice(&[0x01, 0x60]);
        bytes
    };
    let once = wrap(&inner);
    assert!(encoding::decode::<Query>(&once).is_ok());
    assert!(encoding::decode::<Query>(&wrap(&once)).is_err());
    let deep = (0..100_000).fold(Vec::new(), |mut bytes: Vec<u8>, _| {
        bytes.extend_from_slice(&[0x82, 0x18, 30, 0x81, 0xa2, 0x00]);
        bytes
    });
    assert!(encoding::decode::<Query>(&deep).is_err());
}
