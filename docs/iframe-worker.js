// Browsers start no workers from file://. There the search runs in a hidden frame, which is given what a worker has.
"use strict";
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.ready = new Promise((done) => this.frame.addEventListener("load", done, { once: true })).then(() => {
        const inside = this.frame.contentWindow;
        inside.postMessage = (data) => this.receive(data);
        inside.importScripts = (...urls) => urls.reduce((before, next) => before.then(() => this.run(next)), Promise.resolve());
        return this.run(url);
      });
      document.body.append(this.frame);
    }

    run(url) {
      const script = this.frame.contentDocument.createElement("script");
      script.src = url;
      const loaded = new Promise((done) => script.addEventListener("load", done));
      this.frame.contentDocument.body.append(script);
      return loaded;
    }

    receive(data) {
      const message = new MessageEvent("message", { data });
      this.dispatchEvent(message);
      if (this.onmessage) this.onmessage(message);
    }

    postMessage(data) {
      this.ready.then(() => {
        const inside = this.frame.contentWindow;
        inside.dispatchEvent(new inside.MessageEvent("message", { data }));
      });
    }

    terminate() {
      this.frame.remove();
    }
  };
}
