"""The words that the simulated model knows: short lists written for it, far from a dictionary."""

from __future__ import annotations

NOUNS = tuple(
    """
    apple army baby bag bank basket beach berry bird blanket boat book bottle box branch bridge
    brush bus butterfly button cake candle car castle cat chair cherry child church city class
    clock cloud coat coin country cow cup daisy desk dish doctor dog door dress dream eagle
    engine family farm feather field finger fish flag flower foot forest fork fox friend garden
    gate glass glove goose guest guitar half hammer hat hero hill horse house island jacket jar
    key king kitchen kite knife lady lake lamp leaf letter library life lion loaf lunch machine
    man map match mirror monkey moon mountain mouse nail name nest nurse ocean office orange ox
    painter peach pencil person piano pillow planet plate pony potato prince queen river road
    rocket roof rope sandwich school scarf shelf ship shoe shop sister spoon star stone story
    street student table tax teacher tent thief tiger tomato tooth tower toy train tree truck
    turtle valley village watch wave whale wife window witch wolf woman
    """.split()
)

PLURALS = {
    "child": "children",
    "fish": "fish",
    "foot": "feet",
    "goose": "geese",
    "man": "men",
    "mouse": "mice",
    "ox": "oxen",
    "person": "people",
    "tooth": "teeth",
    "woman": "women",
}
TAKES_VES = frozenset("half knife leaf life loaf scarf shelf thief wife wolf".split())
TAKES_OES = frozenset("hero potato tomato".split())

_OPPOSITES = """
    above below, accept refuse, add remove, alive dead, always never, arrive leave, asleep awake,
    before after, begin end, big small, bitter sweet, black white, borrow lend, brave cowardly,
    bright dim, buy sell, cheap expensive, clean dirty, deep shallow, early late, easy difficult,
    empty full, enemy friend, enter exit, false true, fast slow, fat thin, find lose, first last,
    forget remember, generous stingy, give take, good bad, guilty innocent, happy sad,
    hard soft, heavy light, high low, hot cold, huge tiny, inside outside, laugh cry, left right,
    long short, loud quiet, love hate, maximum minimum, narrow wide, near far, new old,
    night day, noisy silent, open closed, polite rude, poor rich, public private, push pull,
    question answer, rough smooth, same different, sharp blunt, sink float, start stop,
    strong weak, tall short, tight loose, top bottom, ugly beautiful, up down, victory defeat,
    war peace, wet dry, whisper shout, wild tame, winter summer, wise foolish, young old
"""


def _both_ways() -> dict[str, tuple[str, ...]]:
    """Each word with all its opposites."""
    found: dict[str, tuple[str, ...]] = {}
    for pair in _OPPOSITES.split(","):
        one, other = pair.split()
        found[one] = (*found.get(one, ()), other)
        found[other] = (*found.get(other, ()), one)
    return found


OPPOSITES = _both_ways()

_TRANSLATIONS = """
    apple pomme Apfel, arm bras Arm, autumn automne Herbst, bed lit Bett, bee abeille Biene,
    bird oiseau Vogel, black noir schwarz, blue bleu blau, book livre Buch, bread pain Brot,
    brother frère Bruder, butter beurre Butter, cat chat Katze, chair chaise Stuhl,
    cheese fromage Käse, church église Kirche, city ville Stadt, cloud nuage Wolke,
    cow vache Kuh, dog chien Hund, door porte Tür, ear oreille Ohr, earth terre Erde, egg œuf Ei,
    eye œil Auge, father père Vater, finger doigt Finger, fire feu Feuer, fish poisson Fisch,
    flower fleur Blume, forest forêt Wald, friend ami Freund, garden jardin Garten,
    green vert grün, hand main Hand, head tête Kopf, heart cœur Herz, honey miel Honig,
    horse cheval Pferd, house maison Haus, key clé Schlüssel, king roi König, knife couteau Messer,
    lake lac See, leaf feuille Blatt, life vie Leben, light lumière Licht, milk lait Milch,
    moon lune Mond, morning matin Morgen, mother mère Mutter, mountain montagne Berg,
    mouth bouche Mund, name nom Name, night nuit Nacht, nose nez Nase, paper papier Papier,
    queen reine Königin, rain pluie Regen, red rouge rot, river rivière Fluss, salt sel Salz,
    school école Schule, sea mer Meer, shirt chemise Hemd, shoe chaussure Schuh,
    sister sœur Schwester, sky ciel Himmel, snow neige Schnee, soap savon Seife,
    spoon cuillère Löffel, spring printemps Frühling, star étoile Stern, stone pierre Stein,
    street rue Straße, sugar sucre Zucker, summer été Sommer, sun soleil Sonne, table table Tisch,
    tongue langue Zunge, tooth dent Zahn, tree arbre Baum, water eau Wasser, week semaine Woche,
    white blanc weiß, wind vent Wind, window fenêtre Fenster, wine vin Wein, winter hiver Winter,
    woman femme Frau, word mot Wort, world monde Welt, year année Jahr, yellow jaune gelb
"""
_ENTRIES = tuple(entry.split() for entry in _TRANSLATIONS.split(","))
FRENCH = {english: french for english, french, _ in _ENTRIES}
GERMAN = {english: german for english, _, german in _ENTRIES}

RHYMES = tuple(
    tuple(group.split())
    for group in (
        "cat hat bat mat rat flat",
        "day way play stay gray clay",
        "light night right sight bright fight",
        "tree bee sea free knee key",
        "moon soon spoon noon prune tune",
        "ball tall fall wall call small",
        "ring king sing wing thing spring",
        "cake lake snake make shake bake",
        "boat coat goat note vote throat",
        "rain train pain chain brain grain",
        "bell shell tell well smell spell",
        "book look cook hook took brook",
        "down town brown crown clown gown",
        "nose rose toes hose those close",
        "game name fame flame same frame",
        "hill will pill mill fill still",
        "sand hand band land stand grand",
        "duck luck truck stuck buck pluck",
        "nine line mine pine wine shine",
        "bear chair hair pear square stair",
        "blue shoe glue true new who",
        "rock clock sock lock knock block",
    )
)

NAMES = "Anna Ben Clara David Emma Frank Grace Henry Irene Jonas Lena Oscar".split()
VERBS = "bought carried drew found hid kept lost moved noticed painted sold wanted".split()
ADJECTIVES = "old heavy green tiny lovely broken quiet shiny useful yellow".split()
THINGS = "basket candle chair guitar hammer kite lamp mirror pencil rope toy umbrella".split()
TIMES = "yesterday today again twice outside alone somewhere quickly indoors together".split()
