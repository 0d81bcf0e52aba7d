//! A citation as JSON: in records, responses, events and the calls of the database.
//!
//! ```text
//! "source":{"start":0,"end":120} or null, "supported":true, false or null, "notes":["yes_or_no",…]
//! ```

use super::check::{Citation, Note};
use super::sentences::Passage;
use crate::json::record::{FromJson, Members, ToJson, write_object};

impl Citation {
    /// Returns the three members.
    #[must_use]
    pub fn members(&self) -> [(&'static str, &dyn ToJson); 3] {
        [("source", &self.source), ("supported", &self.supported), ("notes", &self.notes)]
    }

    /// Reads the three members, which records of an earlier version lack. A note of a later version is left out.
    #[must_use]
    pub fn read(members: &Members<'_>) -> Option<Self> {
        Some(Self {
            source: members.get("source")?,
            supported: members.get("supported")?,
            notes: notes_of(&members.get_or_default::<Vec<String>>("notes")?),
        })
    }
}

/// Returns the notes with these codes.
#[must_use]
pub fn notes_of(codes: &[String]) -> Vec<Note> {
    let note = |code: &String| Note::ALL.into_iter().find(|note| note.code() == code);
    codes.iter().filter_map(note).collect()
}

impl ToJson for Passage {
    fn write(&self, json: &mut String) {
        write_object(json, &[("start", &self.start), ("end", &self.end)]);
    }
}

impl FromJson for Passage {
    fn read(json: &[u8]) -> Option<Self> {
        let members = Members::read(json)?;
        Some(Self { start: members.get("start")?, end: members.get("end")? })
    }
}

impl ToJson for Note {
    fn write(&self, json: &mut String) {
        self.code().write(json);
    }
}

/// The share of a text that has a candidate, from a percentage; 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage(pub u32);

impl ToJson for Coverage {
    fn write(&self, json: &mut String) {
        (f64::from(self.0) / 100.0).write(json);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::json::record::to_json;

    fn written(citation: &Citation) -> String {
        let mut json = String::new();
        write_object(&mut json, &citation.members());
        json
    }

    fn read(json: &str) -> Option<Citation> {
        Citation::read(&Members::read(json.as_bytes())?)
    }

    #[test]
    fn a_written_citation_is_read_back() {
        for (citation, expected) in [
            (Citation::default(), r#"{"source":null,"supported":null,"notes":[]}"#),
            (
                Citation {
                    source: Some(Passage { start: 0, end: 10_000 }),
                    supported: Some(false),
                    notes: vec![Note::ListAnswer, Note::YesOrNo],
                },
                r#"{"source":{"start":0,"end":10000},"supported":false,"notes":["list_answer","yes_or_no"]}"#,
            ),
            (
                Citation {
                    source: Some(Passage { start: 7, end: 9 }),
                    supported: Some(true),
                    notes: Note::ALL.to_vec(),
                },
                r#"{"source":{"start":7,"end":9},"supported":true,"notes":["answer_in_question","yes_or_no","refers_to_text","near_duplicate","other_language","list_answer"]}"#,
            ),
        ] {
            assert_eq!(written(&citation), expected);
            assert_eq!(read(expected), Some(citation));
        }
    }

    #[test]
    fn a_record_without_the_members_has_no_citation() {
        assert_eq!(read("{}"), Some(Citation::default()));
    }

    #[test]
    fn a_note_of_a_later_version_is_left_out() {
        let read = read(r#"{"notes":["boring","yes_or_no",""]}"#).expect("readable");
        assert_eq!(read.notes, [Note::YesOrNo]);
    }

    #[test]
    fn a_broken_citation_is_not_read() {
        for broken in [
            r#"{"source":{}}"#,
            r#"{"source":{"start":1}}"#,
            r#"{"source":{"start":-1,"end":2}}"#,
            r#"{"source":[1,2]}"#,
            r#"{"supported":1}"#,
            r#"{"notes":null}"#,
            r#"{"notes":[1]}"#,
        ] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_coverage_is_a_number_from_0_to_1() {
        for percent in 0..=100_u32 {
            let written: Value = serde_json::from_str(&to_json(&Coverage(percent))).expect("it is JSON");
            assert_eq!(written, json!(f64::from(percent) / 100.0), "{percent}");
        }
        assert_eq!(
            [0, 7, 67, 100].map(|percent| to_json(&Coverage(percent))),
            ["0.0", "0.07", "0.67", "1.0"]
        );
    }
}
