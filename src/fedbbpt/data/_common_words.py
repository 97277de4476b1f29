"""Words that tell nothing of an example: those of grammar, and those that instructions are made of.

Written by hand, English, in no order of frequency. Inflected forms stand for themselves.
"""

from __future__ import annotations

COMMON = frozenset(
    """
    a about above across after again against all almost alone along already also although always am
    among an and another any anyone anything are around as at away back be because become been
    before behind being below beside between both but by came can cannot come could did do does
    doing done down during each either else enough even ever every everyone everything few first for
    from full get gets getting give given gives go goes going gone good got great had has have
    having he her here hers herself him himself his how however i if in instead into is it its
    itself just keep kept know last least less let like likely long look made make makes making man
    many may maybe me men might mine more most much must my myself need needs neither never new next
    no nobody none nor not nothing now of off often old on once one ones only onto or other others
    our ours out over own people perhaps person please put quite rather really said same say says
    see seem seen several shall she should since so some someone something sometimes still such take
    taken takes taking tell than that the their theirs them themselves then there therefore these
    they thing things think this those though through thus to together too toward towards two under
    unless until up upon us use used useful uses using usually very want wants was way ways we well
    went were what whatever when where whether which while who whole whom whose why will with within
    without woman women would yes yet you your yours yourself don didn doesn isn aren wasn weren won
    wouldn couldn shouldn hasn haven ain s t d ll re ve m etc eg ie ok per via vs mr mrs
    zero two three four five six seven eight nine ten second third fourth fifth half double single
    pair pairs dozen hundred thousand million number numbers numeric numerical digit digits
    monday tuesday wednesday thursday friday saturday sunday january february march april june july
    august september october november december day days week month year years time times date today
    english french german spanish italian portuguese dutch russian chinese japanese korean arabic
    latin language languages
    act active add added adding addition adjective adverb alphabet alphabetical alphabetically
    animal animals answer answers antonym antonyms appear appears apply ascending ask asked asks
    associated base based begin beginning begins best better big bigger biggest blank both bullet
    calculate case categories category cause causes change changed changes changing character
    characteristic characters check choose choosing class classes classification classify close
    closest code combine comma commas common commonly compare compared complete compute concept
    concepts concise consider consists consonant consonants contain contained contains content
    context convert converted copy correct correctly corresponding count counting create decide
    define definition degree descending describe described describes describing description
    determine difference different digit direct directly discuss each effect element elements email
    end ending ends entity equal event events exact exactly example examples explain explanation
    express expressed expresses expression extract fact false feature features field fill final find
    finding follow followed following follows form formal formally format formatted former forms
    formulate fraction general generate greater greatest group guess happened happens high higher
    highest identical identify include included includes including increase indicate infer informal
    information initial input inputs instruction instructions item items keep key kind label labels
    large larger largest larger lead leading left length letter letters level line lines list listed
    lists long longer longest lower lowercase lowest main match matches matching mean meaning
    meanings means mention mentioned message middle missing model name named names negate negated
    negation negative neutral noun nouns object objects observation occur occurs operation operator
    opinion opposite option options order ordered original output outputs outcome paragraph
    paraphrase part parts passive past pattern phrase phrases piece place plural plurals point
    polarity position positive possible predict present presented previous print problem produce
    pronoun provide provided punctuation question questions quote quoted range rate rated rating
    read reason relation relationship remove removed repeat repeated rephrase replace reply
    represent respond response result results return reverse reversed review reviews rewrite
    rewritten rhyme
    rhymes rhyming right root row rule rules scale score scored select selected sense sentence
    sentences sentiment separate separated separating sequence set share shared shares short shorter
    shortest show shown similar similarity simple simplify singular size small smaller smallest sort
    sorted source space spaces speak specific spell spelled spelling split start starting starts
    state stated statement statements step steps string strings style subtract sum summarise
    summarize summary swap synonym synonyms target task tense term terms test text texts thing title
    token tokens tone topic total transform translate translated translation true turn type types
    unchanged uppercase upper value values verb verbs verbal voice vowel vowels word wording words
    work write writes writing written wrong
    """.split()
)
