//! Formulas in candidates: 500 of them, in four ways in which models escape backslashes, with chunk borders everywhere.

use ai_sessions::generation::candidate::{Candidate, Found};
use ai_sessions::generation::candidate_reader::CandidateReader;
use ai_sessions::openrouter::response_reader::{End, ResponseReader};
use serde_json::json;

/// Commands without arguments, of every letter.
const SYMBOLS: &str = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi \
psi omega Gamma Delta Theta varphi nabla partial infty hbar ell Re forall exists nexists emptyset neg \
angle triangle top bot natural flat sharp aleph Box bullet bigcirc backslash beth rightangle tan tanh sin \
cos ln lim max dots";
/// Commands between two terms.
const RELATIONS: &str = "times cdot div pm ne neq leq geq nleq ngeq nless ngtr approx equiv ncong sim nsim in notin ni subset \
nsubseteq cup cap setminus to rightarrow Rightarrow nrightarrow leftarrow nleftarrow leftrightarrow \
rightleftharpoons mapsto uparrow nearrow nwarrow therefore because mid nmid parallel nparallel perp \
triangleleft trianglerighteq ntriangleleft rtimes bowtie prec nprec forall fallingdotseq risingdotseq \
between thickapprox twoheadrightarrow rightharpoonup bmod u";
/// `@` is a symbol, `#` a relation.
const FORMS: &[&str] = &[
    r"\frac{@}{@ # 2} # @",
    r"@_{1} # @^2",
    r"\(@ # @\)",
    r"\[ @ # \sqrt{@} \]",
    r"$@ # x$ and $@$",
    r"\text{if } @ # 0",
    r"\begin{pmatrix} @ & b \\ c & @ \end{pmatrix}",
    r"f(@)=\begin{cases} 1 & @ # 0 \\ 0 & \text{else} \end{cases}",
    r"\left( @ # @ \right)",
    r"\bar{@} # \hat{@} # \tilde{@} # \vec{@}",
    r"\mathbf{F} # @\,\mathrm{d}@",
    r"\sum_{i=1}^{n} @_i # @",
    r"\ce{H2O} # @ \%",
    r"\boxed{@} # \binom{n}{@}",
    r"@,@ # @;@",
    r"x#@",
    r"\overline{@}#\underline{@}",
    r"\{@ # @\} \cup \{@\}",
    r"\lim_{x \to 0} @ # \tfrac{1}{2}",
    r"\textbf{@ # @} \rangle \langle",
    r"\int_0^\infty @ # @\!@ \quad \bigl[ @ \bigr]",
    r"\footnotesize @ # \rm @ \newline @",
    r"a@ # 50\,\% \cdot \$@",
    r"\num{5} # \tag{1} \ref{@} \nonumber @",
    r"\not\subset @ # \bot",
];
const COUNT: usize = 500;

fn formulas() -> Vec<String> {
    let mut symbols = SYMBOLS.split(' ').cycle();
    let mut relations = RELATIONS.split(' ').cycle();
    let mut formulas = Vec::new();
    // One more round than necessary, each with another start.
    for (number, form) in FORMS.iter().cycle().take(COUNT + FORMS.len()).enumerate() {
        if number % FORMS.len() == 0 {
            symbols.next();
        }
        if formulas.len() == COUNT {
            break;
        }
        let mut formula = String::new();
        for c in form.chars() {
            match c {
                '@' | '#' => {
                    let next = if c == '@' { symbols.next() } else { relations.next() };
                    formula.push('\\');
                    formula.push_str(next.unwrap_or_default());
                }
                c => {
                    // Another character ends the letters of a command.
                    let in_command =
                        formula.rsplit('\\').next().is_some_and(|word| word.chars().all(char::is_alphabetic));
                    if c.is_alphabetic() && in_command && formula.contains('\\') && is_filled(form, &formula)
                    {
                        formula.push(' ');
                    }
                    formula.push(c);
                }
            }
        }
        if !formulas.contains(&formula) {
            formulas.push(formula);
        }
    }
    formulas
}

/// Whether the last command was filled in, and is not part of the form itself.
fn is_filled(form: &str, formula: &str) -> bool {
    let last = formula.rsplit('\\').next().unwrap_or_default();
    !form.contains(&["\\", last].concat())
}

/// Writes a formula into a JSON string as models do.
fn ways(formula: &str) -> [String; 4] {
    let each = |escape: &dyn Fn(usize) -> &'static str| {
        let mut written = String::new();
        let mut rest = formula.chars().peekable();
        let mut number = 0;
        while let Some(c) = rest.next() {
            if c != '\\' {
                written.push(c);
                continue;
            }
            written.push_str(escape(number));
            // The two backslashes of a row are escaped alike.
            if rest.next_if_eq(&'\\').is_some() {
                written.push_str(escape(number));
            }
            number += 1;
        }
        written
    };
    [
        each(&|_| r"\"),
        each(&|_| r"\\"),
        each(&|_| r"\u005c"),
        each(&|number| if number % 2 == 0 { r"\" } else { r"\\" }),
    ]
}

fn content(written: &str) -> String {
    ["[{\"front\":\"", written, "\",\"back\":\"b\",\"prompt\":\"p\"}]"].concat()
}

fn expected(formula: &str) -> Candidate {
    let text = str::to_owned;
    Candidate { front: text(formula), back: text("b"), prompt: text("p"), sentences: Vec::new() }
}

#[test]
fn the_500_formulas_contain_every_command() {
    let formulas = formulas();
    assert_eq!(formulas.len(), COUNT);
    assert!(formulas.iter().all(|formula| (4..=200).contains(&formula.len())));
    for command in SYMBOLS.split(' ').chain(RELATIONS.split(' ')) {
        let command = ["\\", command].concat();
        assert!(formulas.iter().any(|formula| formula.contains(&command)), "{command}");
    }
}

#[test]
fn no_formula_is_altered_however_it_is_escaped_and_cut() {
    for formula in formulas() {
        let expected = expected(&formula);
        for written in ways(&formula) {
            let content = content(&written);
            for size in 1..=content.len() {
                let mut found: Vec<Found> = Vec::new();
                let mut reader = CandidateReader::default();
                for part in content.as_bytes().chunks(size) {
                    reader.push(part, &mut |candidate| {
                        found.push(candidate);
                        true
                    });
                }
                assert_eq!(found.as_slice(), [Ok(expected.clone())], "{content} by {size}");
                assert!(reader.is_closed());
            }
        }
    }
}

#[test]
fn no_formula_is_altered_on_the_wire_or_within_a_string() {
    for formula in formulas() {
        for written in ways(&formula) {
            let content = content(&written);
            let in_string = json!({ "candidates": content }).to_string();
            for content in [content, in_string] {
                let mut found: Vec<Found> = Vec::new();
                let mut take = |candidate: Found| {
                    found.push(candidate);
                    true
                };
                let mut reader = ResponseReader::new(200, "text/event-stream", None);
                for part in content.as_bytes().chunks(7) {
                    let part = String::from_utf8_lossy(part);
                    let chunk = json!({ "choices": [{ "delta": { "content": part } }] });
                    reader.push(format!("data: {chunk}\n\n").as_bytes(), &mut take);
                }
                assert_eq!(reader.end(End::Regular, &mut take).failure, None);
                assert_eq!(found, [Ok(expected(&formula))], "{content}");
            }
        }
    }
}
