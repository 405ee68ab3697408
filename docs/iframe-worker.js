// The search runs in a worker, which browsers do not start for pages from the file system. There, a hidden frame of the
// page's own origin takes its place: the same script, and messages as events.
if (location.protocol === "file:") {
  const inside = () => {
    self.postMessage = (data) => parent.dispatchEvent(new MessageEvent("message", { data, source: self }));
    self.importScripts = (...places) =>
      places.reduce(
        (before, place) =>
          before.then(
            () =>
              new Promise((done, failed) => {
                const script = document.createElement("script");
                script.src = place;
                script.onload = done;
                script.onerror = () => failed(new Error(`${place} cannot be loaded`));
                document.body.append(script);
              })
          ),
        Promise.resolve()
      );
  };

  window.IFrameWorker = class extends EventTarget {
    constructor(place) {
      super();
      this.onmessage = null;
      this.waiting = []; // messages that were sent before the script was there
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      const start = () => {
        document.body.append(this.frame);
        const page = this.frame.contentDocument;
        page.open();
        page.write(`<!doctype html><body><script>(${inside})()</script><script src="${place}"></script>`);
        page.close();
        this.frame.contentWindow.addEventListener("load", () => {
          const waiting = this.waiting;
          this.waiting = null;
          waiting.forEach((data) => this.postMessage(data));
        });
      };
      window.addEventListener("message", (event) => {
        if (event.source !== this.frame.contentWindow) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      });
      if (document.body) start();
      else addEventListener("DOMContentLoaded", start);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }

    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
