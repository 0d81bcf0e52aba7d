//! The quality of the check of candidates (`src/citation/`), measured with a frozen set of texts and cards in eight languages.
//!
//! A third of the cards have a defect of a named kind. `npm run quality` prints the figures; the tests fail below those that
//! `docs/citation.md` states. The rule was tuned with half of the texts; the other half was only measured.

#![expect(clippy::expect_used, reason = "a set that cannot be read fails the test")]

mod report;
mod set;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use report::{Figures, checked, figures};
use set::{Defect, Half, documents};

#[test]
fn the_set_has_the_size_that_the_documents_state() {
    let documents = documents();
    let cards = || documents.iter().flat_map(|document| &document.cards);
    let defects = cards().filter(|card| card.defect.is_some()).count();
    assert_eq!((documents.len(), cards().count(), defects), (16, 469, 177));
    for document in &documents {
        assert!((1_000..=10_000).contains(&document.text().chars().count()), "{}", document.name);
    }
    for half in [Half::Tuned, Half::HeldOut] {
        let languages: BTreeSet<&str> = documents
            .iter()
            .filter(|document| document.half == half)
            .map(|document| document.language.as_str())
            .collect();
        assert_eq!(languages.len(), 8);
    }
}

#[test]
fn the_figures_are_as_good_as_the_documents_state() {
    let documents = documents();
    let checked = checked(&documents);
    println!("{}", report::table(&documents, &checked));
    let all = figures(&checked, |_, _| true);
    assert_eq!(all.without_source, 0);
    assert!(all.good_unsupported * 50 <= all.good, "{} of {}", all.good_unsupported, all.good);
    let (found, sentences) = report::sentences_found(&documents);
    assert!(found * 100 >= sentences * 95, "{found} of {sentences} sentences");
    // Half of the references are in phrases that the rule does not have.
    assert!(all.found[&Defect::RefersToText] * 2 >= all.count[&Defect::RefersToText], "{:?}", all.found);
    assert!(all.found[&Defect::ListAnswer] * 100 >= all.count[&Defect::ListAnswer] * 90, "{:?}", all.found);
    for half in [Half::Tuned, Half::HeldOut] {
        let Figures { found, count, .. } = figures(&checked, |document, _| document.half == half);
        let share = |defects: &[Defect]| {
            let sum = |counts: &BTreeMap<Defect, usize>| -> usize {
                defects.iter().filter_map(|defect| counts.get(defect)).sum()
            };
            sum(&found) * 100 / sum(&count)
        };
        for defect in [Defect::Number, Defect::Name, Defect::Invented, Defect::OtherText] {
            assert!(share(&[defect]) >= 95, "{defect:?}: {found:?} of {count:?}");
        }
        assert!(
            share(&[Defect::Leak, Defect::YesOrNo, Defect::OtherLanguage]) >= 95,
            "{found:?} of {count:?}"
        );
        assert!(share(&[Defect::Duplicate]) >= 75, "{found:?} of {count:?}");
    }
}

#[test]
fn the_document_states_the_figures_of_this_run() {
    let documents = documents();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/citation.md");
    let document = fs::read_to_string(path).expect("the document is there").replace('\n', " ");
    for statement in report::statements(&documents, &checked(&documents)) {
        assert!(document.contains(&statement), "docs/citation.md does not state: {statement}");
    }
}

/// What the documents say that the rule cannot see: a test that fails once it can, so that they are corrected.
#[test]
fn a_negation_is_not_seen() {
    let documents = documents();
    let all = figures(&checked(&documents), |_, card| card.defect == Some(Defect::Negation));
    let found = all.found.get(&Defect::Negation).copied().unwrap_or_default();
    assert!(found * 5 < all.count[&Defect::Negation], "{found}");
}
