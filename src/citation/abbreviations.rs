//! Abbreviations that a capital follows within a sentence.

/// In lower case, without the full stop. Of three letters or more, or of two that are no initial; those of one letter and
/// those with a full stop inside (`z.B.`, `т.е.`) follow from rules. Without those that end a sentence as often (`etc.`, `usw.`, `itd.`).
const ABBREVIATIONS: &[&str] = &[
    "abb", "abs", "approx", "aufl", "avda", "bd", "bl", "bzw", "ca", "cf", "chap", "dr", "dra", "eds", "ee",
    "eq", "evtl", "fig", "figs", "fr", "gov", "ggf", "hl", "hr", "hrsg", "inkl", "inż", "jh", "kap", "lt",
    "maks", "mr", "mrs", "ms", "mt", "núm", "nr", "np", "pág", "pl", "pp", "prof", "pt", "ref", "ryc", "rys",
    "sek", "sen", "sr", "sra", "sres", "srta", "st", "ste", "str", "tab", "tel", "tzn", "tzw", "ul", "ust",
    "vgl", "vol", "vs", "św", "гг", "им", "напр", "проф", "рис", "св", "см", "стр", "табл", "ул", "डॉ",
];

/// Whether a word in lower case is in the list.
pub(super) fn is_abbreviation(word: &str) -> bool {
    ABBREVIATIONS.contains(&word)
}
