// Names the next fixture of one account, where the kind of its message says too little.
export const label = { address: null, name: null };
