"""Names for needles: common words, joined to make as many different keys as a task needs."""

from __future__ import annotations

import random
import string
import uuid

_ADJECTIVES = """
    able amber ancient ardent autumn azure bitter blunt bold brave brief bright brisk broad
    bronze calm candid careful cheerful civil clean clear clever coastal cold copper coral cosy
    crimson crisp curious dapper daring dark deep dense distant dusty eager early earnest eastern
    easy elder elegant empty even faint fair fancy fast fertile fierce final fleet fluent fond
    formal fragile frank fresh frosty gentle giant glad golden grand grateful green handy happy
    hardy hasty hidden hollow honest humble icy idle inner ivory jolly keen kind large late lazy
    level light lively lofty lone loud loyal lucid lunar marble mellow merry mighty mild misty
    modest narrow neat nimble noble northern oaken olive open orderly outer pale patient placid
    plain polite prime proper proud prudent pure quaint quick quiet rapid rare ready red regal
    restful rich rigid ripe robust round royal rural rustic scarlet secret serene severe sharp
    shy silent silver simple sleek slender slow smooth sober soft solemn solid southern spare
    stable stark steady stern still stout strange strict strong subtle sunny supple swift tall
    tame tender thick thin thorough tidy tiny tough tranquil true urban usual vague valiant vast
    velvet vivid warm wary western white wide wild winding wintry wise witty woven young"""
_NOUNS = """
    acorn alcove anchor anvil apple apron arch arrow atlas attic badge badger bakery banner
    barley barn barrel basin basket beacon beaver bell bench berry birch blanket blossom boat
    bonnet bottle boulder bowl bramble branch brick bridge brook broom bucket buckle button cabin
    camel candle canoe canvas canyon carpet castle cedar cellar chain chair chalk chapel cherry
    chest chimney circle cliff cloak clock clover coach cobbler comet compass copse cotton cradle
    crane creek cricket crown cup current curtain cypress daisy dial door dove drum easel eagle
    elbow elm ember falcon feather fence fern ferry fiddle field finch flag flask flute forest
    forge fountain fox garden garnet gate glacier glove goose grape grove guitar hammer harbor
    harp hazel hearth hedge heron hill hinge honey horn island ivy jacket jewel jug juniper kettle
    key kite ladder lagoon lantern lark laurel leaf ledger lemon lever lily linen lizard lock loom
    magnet maple market marsh meadow melon mill mirror mitten moon moss moth mountain nectar
    needle nest nettle oak oar oasis ocean orchard otter owl paddle palace panel parcel parsley
    path pear pebble pepper piano pillar pillow pine pitcher planet plough plum pocket pond poppy
    porch prairie quarry quill rabbit raft raven reed ribbon ridge river robin rope rose saddle
    sail salmon satchel shell shield shore spade sparrow spindle spoon spring stable staircase
    statue stone stream summit sundial swallow table temple thimble thistle tiger timber torch
    tower trail trumpet tulip tunnel turnip valley vessel village violin walnut warbler wheel
    whistle willow window wren yarrow zephyr"""
ADJECTIVES = tuple(_ADJECTIVES.split())
NOUNS = tuple(_NOUNS.split())


def words(rng: random.Random, n: int) -> list[str]:
    """Draw `n` different words: all single words first, then adjective-noun pairs."""
    single = sorted({*ADJECTIVES, *NOUNS})
    rng.shuffle(single)
    if n <= len(single):
        return single[:n]
    return single + names(rng, n - len(single))


def names(rng: random.Random, n: int) -> list[str]:
    """Draw `n` different names such as ``brave-otter``."""
    return rng.sample(_pairs(n), n)


def _pairs(at_least: int) -> list[str]:
    pairs = [f"{adjective}-{noun}" for adjective in ADJECTIVES for noun in NOUNS]
    extra = iter(ADJECTIVES)
    while len(pairs) < at_least:
        first = next(extra)
        pairs += [f"{first}-{pair}" for pair in pairs[: len(ADJECTIVES) * len(NOUNS)]]
    return pairs


def number(rng: random.Random, digits: int) -> str:
    """Draw a number with `digits` digits, the first of which is not zero."""
    return str(rng.randint(10 ** (digits - 1), 10**digits - 1))


def random_uuid(rng: random.Random) -> str:
    """Draw a version 4 UUID from `rng`."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def letters(
    rng: random.Random, n: int, size: int, alphabet: str = string.ascii_uppercase
) -> list[str]:
    """Draw `n` different strings of `size` random letters."""
    drawn: dict[str, None] = {}
    while len(drawn) < n:
        drawn["".join(rng.choices(alphabet, k=size))] = None
    return list(drawn)
