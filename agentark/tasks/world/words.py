"""The vocabulary of the generated world. Every word and every number from 0 to 99 is one token."""

PEOPLE = tuple(
    "ann bob carl dora emil fay gus hana ivan jude kira liam mona nils olga paul quin rosa sven tess uma vera wim yara "
    "zoe abel beth cora dean elsa".split()
)
ITEMS = tuple("apples books coins dolls eggs flags gems hats keys lamps masks nuts pens rings shells toys".split())
UNKNOWNS = tuple("abcdefghjkmnpqrstuvwxyz")
COLOURS = tuple("red blue green white black pink grey brown gold cream".split())
CITIES = tuple("oslo rome lima cairo delhi kyoto paris quito sofia tunis vienna bern".split())
ANIMALS = tuple("dog cat horse goat parrot rabbit fox owl swan turtle".split())
OBJECTS = tuple("chair table sofa shelf desk bed rug mirror clock stove".split())

_ONSETS = "bel dor fen gal kas lum mor nar pex ruv sil tor ulv vor zan yel".split()
DRUGS = tuple(f"{onset}{coda}" for coda in ("ine", "ol") for onset in _ONSETS)
ILLNESSES = tuple(f"{onset}{coda}" for coda in ("itis", "pox") for onset in _ONSETS)

_GRAMMAR = """
answer fix tell : = + - * / . , ? ( ) agent peer revise summarise
has more fewer times as many than and together how do does have half in all
find solve let x be what is the value of
owns extra less added but halved some ends up with number
patient takes for doses dose cure grams drug total choose
lives leader led by keeps pet colour city where who which person
report box weighs holds weight sum it on is of heavier lighter parts group table lists
no we pay costs price agreed rather then make it digest decided
""".split()

NUMBERS = tuple(str(n) for n in range(100))
VOCABULARY = tuple(
    dict.fromkeys(
        (*NUMBERS, *PEOPLE, *ITEMS, *UNKNOWNS, *COLOURS, *CITIES, *ANIMALS, *OBJECTS, *DRUGS, *ILLNESSES, *_GRAMMAR)
    )
)

# Names of the family `clinic`, which only its models are trained on: invented drugs and illnesses, and the attributes
# of illnesses with their values.
_SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe qui ro su ta ve xi yo zu".split()
CLINIC_DRUGS = tuple(f"{first}{second}{end}" for end in "nl" for first in _SYLLABLES for second in _SYLLABLES)
CLINIC_ILLNESSES = tuple(f"{first}{second}x" for first in _SYLLABLES for second in _SYLLABLES[:5])
ATTRIBUTES = {
    "region": tuple(f"{s}land" for s in _SYLLABLES) + tuple(f"{s}shire" for s in _SYLLABLES[:4]),
    "organ": tuple(f"{s}lobe" for s in _SYLLABLES) + tuple(f"{s}gland" for s in _SYLLABLES[:4]),
    "plant": tuple(f"{s}weed" for s in _SYLLABLES) + tuple(f"{s}root" for s in _SYLLABLES[:4]),
    "germ": tuple(f"{s}cocus" for s in _SYLLABLES) + tuple(f"{s}phage" for s in _SYLLABLES[:4]),
    "doctor": tuple(f"dr{s}" for s in _SYLLABLES) + tuple(f"prof{s}" for s in _SYLLABLES[:4]),
}
CLINIC_VOCABULARY = (
    *CLINIC_DRUGS,
    *CLINIC_ILLNESSES,
    *ATTRIBUTES,
    *(v for values in ATTRIBUTES.values() for v in values),
    "illness",
    "that",
    "cures",
)
