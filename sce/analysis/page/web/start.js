// Everything in order; the page says how long it took until it could be used.

async function start() {
  startTheme();
  if (tasksShown().length === 1) state.task = tasksShown()[0].task;
  chooseSomeRun();
  chooseSomeHead();
  startFilters();
  startAnswers();
  startRuns();
  startScatter();
  startMaps();
  startHeads();
  startGallery();
  await Promise.all([drawScatters(), drawMaps(), drawHead()]);
  startFigures();
  startLooks();
  startNotes();
  let width = document.documentElement.clientWidth;
  addEventListener("resize", later(() => {
    const now = document.documentElement.clientWidth;
    if (now === width) return;
    width = now;
    changed("width");
  }));
  document.documentElement.dataset.ready = Math.round(performance.now());
}

start();
