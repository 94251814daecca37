// @ts-check
/** What is not on the server yet, on the disk of this computer: IndexedDB, durability strict. */

/**
 * @typedef {{seq?: number, id: string, reader: string, read: string, client: string, op: any, refused: any}} Kept
 * @typedef {{key: string, reader: string, read: string, client: string, event: any}} KeptEvent
 */

/** @param {IDBRequest} request @returns {Promise<any>} */
const result = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

export class Outbox {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
  }

  /**
   * Open it; an error where the browser has none or refuses it.
   * @returns {Promise<Outbox>}
   */
  static async open() {
    if (!("indexedDB" in window)) throw new Error("no IndexedDB");
    const request = indexedDB.open("sightline", 1);
    request.onupgradeneeded = () => {
      const ops = request.result.createObjectStore("ops", { keyPath: "seq", autoIncrement: true });
      ops.createIndex("id", "id", { unique: true });
      request.result.createObjectStore("events", { keyPath: "key" });
      request.result.createObjectStore("drafts", { keyPath: "read" });
    };
    const database = await result(request);
    database.onversionchange = () => database.close();
    return new Outbox(database);
  }

  /**
   * One transaction; resolves when it lies on the disk.
   * @param {string} store
   * @param {(store: IDBObjectStore) => void} act
   */
  write(store, act) {
    return new Promise((resolve, reject) => {
      let step;
      try {
        step = this.database.transaction(store, "readwrite", { durability: "strict" });
        act(step.objectStore(store));
      } catch (error) {
        reject(error);
        return;
      }
      step.oncomplete = () => resolve(undefined);
      step.onabort = () => reject(step.error || new Error("aborted"));
      step.onerror = () => reject(step.error);
    });
  }

  /** @param {string} store @returns {Promise<any[]>} */
  all(store) {
    return result(this.database.transaction(store, "readonly").objectStore(store).getAll());
  }

  /** @param {Kept} record */
  async keep(record) {
    await this.write("ops", (store) => {
      const request = store.add(record);
      request.onsuccess = () => { record.seq = /** @type {number} */ (request.result); };
    });
  }

  /** @param {Kept[]} records */
  drop(records) {
    return this.write("ops", (store) => { for (const record of records) if (record.seq !== undefined) store.delete(record.seq); });
  }

  /** Set aside what the server refused; it stays here until somebody decides. @param {Kept} record */
  setAside(record) {
    return this.write("ops", (store) => { store.put(record); });
  }

  /** @param {KeptEvent[]} records */
  keepEvents(records) {
    return this.write("events", (store) => { for (const record of records) store.put(record); });
  }

  /** @param {string[]} keys */
  dropEvents(keys) {
    return this.write("events", (store) => { for (const key of keys) store.delete(key); });
  }

  /** The stroke that is being drawn. @param {string} read @param {any} draft null takes it away */
  draft(read, draft) {
    return this.write("drafts", (store) => { if (draft) store.put({ read, ...draft }); else store.delete(read); });
  }

  /** @param {string} read @returns {Promise<any>} */
  draftOf(read) {
    return result(this.database.transaction("drafts", "readonly").objectStore("drafts").get(read));
  }
}
