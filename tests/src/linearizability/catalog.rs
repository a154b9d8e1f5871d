//! What the catalog does with the instances of one service when one asks after the other.

use std::collections::BTreeMap;

use super::Model;

/// An instance: its node and its id there.
pub type Instance = (String, String);

/// What is asked of the instances of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogInput {
    /// Add an instance, or replace the one that is there. In a history no two registrations may say the same.
    Register(Instance, String),
    /// Remove an instance.
    Deregister(Instance),
    /// Remove a node with all that is on it.
    DeregisterNode(String),
    /// Read all instances.
    Instances,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogAnswer {
    /// Done.
    Done,
    /// What is registered.
    Registered(BTreeMap<Instance, String>),
}

/// The instances of one service. The last registration counts, and what is deregistered is handed out to nobody.
#[derive(Clone, Copy, Debug)]
pub struct Catalog;

impl Model for Catalog {
    type State = BTreeMap<Instance, String>;
    type Input = CatalogInput;
    type Answer = CatalogAnswer;

    fn initial() -> Self::State {
        BTreeMap::new()
    }

    fn step(state: &Self::State, input: &CatalogInput, answer: Option<&CatalogAnswer>) -> Option<Self::State> {
        let mut after = state.clone();
        match input {
            CatalogInput::Register(instance, content) => {
                after.insert(instance.clone(), content.clone());
            }
            CatalogInput::Deregister(instance) => {
                after.remove(instance);
            }
            CatalogInput::DeregisterNode(node) => after.retain(|(its, _), _| its != node),
            CatalogInput::Instances => {
                return match answer {
                    None => Some(after),
                    Some(CatalogAnswer::Registered(told)) => (*told == after).then_some(after),
                    Some(CatalogAnswer::Done) => None,
                };
            }
        }
        matches!(answer, None | Some(CatalogAnswer::Done)).then_some(after)
    }
}
