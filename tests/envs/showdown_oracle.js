'use strict';
// A host that can also be asked what the simulator would take, and what a side's channel has said; for tests alone.
const path = require('path');
const folder = path.join(__dirname, '..', '..', 'envs', 'showdown');
const {OPS, battles} = require(path.join(folder, 'host.js'));
const {Watcher, makeNumbers} = require(path.join(folder, 'watcher.js'));
const sim = path.join(process.argv[2], 'dist', 'sim');
const {extractChannelMessages} = require(path.join(sim, 'battle.js'));
const {Dex} = require(sim);

/** Of each text: whether the simulator takes it as the side's whole choice. Nothing is committed. */
OPS.takes = ({key, side, texts}) => {
  const it = battles.get(key).battle.sides[side];
  const taken = texts.map(text => {
    const done = it.choose(text) && it.isChoiceDone();
    it.clearChoice();
    return done;
  });
  return taken;
};

/** What a side's channel and requests have said so far, and the battle's secrets. */
OPS.told = ({key, side}) => {
  const {battle} = battles.get(key);
  const lines = extractChannelMessages(battle.log.join('\n'), [side + 1])[side + 1];
  const foe = battle.sides[1 - side];
  return {lines, request: battle.sides[side].activeRequest,
    foe: foe.pokemon.map(mon => ({species: mon.baseSpecies.id, moves: mon.baseMoveSlots.map(slot => slot.id),
      item: mon.item, ability: mon.ability, tera: mon.teraType})), picked: foe.pokemon.length};
};

/** The row that a new Watcher makes of these lines and this request. */
OPS.watch = ({side, lines, request}) => {
  const watcher = new Watcher(side ? 'p2' : 'p1', makeNumbers(Dex));
  for (const line of lines) watcher.tell(line);
  watcher.request = request;
  return Array.from(watcher.observe());
};

OPS.numbers = () => {
  const numbers = makeNumbers(Dex), found = {};
  for (const kind of ['species', 'moves', 'items', 'abilities', 'types']) found[kind] = Object.fromEntries(numbers[kind]);
  return found;
};
