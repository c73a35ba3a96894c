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

/** SHOWDOWN_POISON='throw <seed>': from the second turn on that battle breaks down; or it ends the process, or hangs. */
const [how, seed] = (process.env.SHOWDOWN_POISON || ' ').split(' ');
const {choose} = OPS;
OPS.choose = message => {
  for (const [key] of message.battles) {
    const {battle} = battles.get(key);
    if (!how || battle.turn < 2 || !String(battle.prngSeed).includes(seed)) continue;
    if (how === 'exit') process.exit(1);
    while (how === 'hang');
    battle.choose = () => { throw new Error('a fault of its own'); };
  }
  return choose(message);
};

/** Battles that are kept, and bytes of the heap that are in use. */
OPS.kept = () => {
  require('v8').setFlagsFromString('--expose_gc');
  require('vm').runInNewContext('gc')();
  return [battles.size, process.memoryUsage().heapUsed];
};
